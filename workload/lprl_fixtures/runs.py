"""A small complete run on disk: model, task and the RunConfig the operator would write for it. For tests and experiments."""

import asyncio
import itertools
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lprl_api.model.config_file import shape_of
from lprl_api.model.formats.chosen import rollout_format, training_format
from lprl_api.names import ENV_ATTEMPT, ENV_VOLUMES_ROOT
from lprl_api.spec.precision import Precision
from lprl_api.wire.runconfig import RunConfig
from lprl_fixtures.architectures import Architecture, Size
from lprl_fixtures.generate import ModelOptions, TaskOptions, generate_model, generate_task

ENV_PACE = "LPRL_PACE"
VOLUME = "all"
"""The one volume: ROOT/all holds model/, data/ and runs/."""


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` on top; nested mappings are merged, everything else is replaced."""
    found = dict(base)
    for key, value in changes.items():
        old = found.get(key)
        found[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return found


def write_inputs(root: Path, architecture: Architecture = "qwen3", size: Size = "tiny", train: int = 64, heldout: int = 16) -> None:
    """Write ROOT/all/model and ROOT/all/data; ROOT is what LPRL_VOLUMES_ROOT names."""
    generate_model(root / VOLUME / "model", ModelOptions(architecture, size))
    generate_task(root / VOLUME / "data", TaskOptions(train=train, heldout=heldout))


def run_config(root: Path, changes: Mapping[str, Any] | None = None) -> RunConfig:
    """Return a RunConfig over what `write_inputs` wrote: 6 steps on one rank and one engine, changed by `changes` (snake_case)."""
    model = {"volume": VOLUME, "path": "model"}
    document = merged(_DEFAULTS | {"model_path": model, "reference_path": model, "rollout_path": model}, changes or {})
    config = root / VOLUME / document["rollout_path"]["path"] / "config.json"
    shape = shape_of(json.loads(config.read_text()), str(config))
    precision = Precision.model_validate(document["precision"])
    formats = {
        "rollout_format": rollout_format(precision, shape.moe is not None),
        "training_format": training_format(precision, shape.moe is not None),
    }
    return RunConfig.model_validate(document | {"shape": shape} | formats)


ONE_RANK: dict[str, Any] = {
    "placement": "colocated",
    "accelerator": "cpu",
    "nodes": 1,
    "slots_per_node": 1,
    "trainer_ranks": 1,
    "data_parallel": 1,
    "engines": 1,
    "slots_per_engine": 1,
    "trainer_nodes": 1,
    "rollout_nodes": 0,
}
"""Ranks of a run with one trainer rank and one engine, side by side on a CPU."""
_DEFAULTS: dict[str, Any] = {
    "job_name": "small",
    "namespace": "default",
    "job_uid": "00000000-0000-0000-0000-000000000000",
    "precision": {"training": "bf16", "rollout": "bf16"},
    "data": {
        "prompts": {"volume": VOLUME, "path": "data/train.jsonl"},
        "reward": {"type": "python", "function": "lprl_fixtures.runs:even_share"},
    },
    "algorithm": {"steps": 6, "rollout_batch_size": 4, "samples_per_prompt": 4, "global_batch_size": 16},
    "optimizer": {"learning_rate": 1e-3},
    "sampling": {"max_response_tokens": 4},
    "evaluation": {
        "every_steps": 3,
        "prompts": {"volume": VOLUME, "path": "data/heldout.jsonl"},
        "samples_per_prompt": 1,
        "pass_at": [1],
    },
    "ranks": ONE_RANK,
    "trainer": {"recompute": "none"},
    "rollout": {},
    "backends": {},
    "weight_sync": {"bucket_bytes": 1 << 16},
    "checkpoint": {
        "directory": {"volume": VOLUME, "path": "runs/small"},
        "every_steps": 2,
        "keep": 3,
        "load_from": None,
        "export_formats": ["bf16"],
    },
    "stability": {},
    "tracking": {"tensorboard": False},
    "progress": {"interval_seconds": 0.5},
    "refill_steps": 10,
}


def even_share(prompt: str, response: str, label: str | None, metadata: Mapping[str, Any]) -> float:
    """A reward any untrained model gets some of: the share of characters with an even code (a `python` reward for tests)."""
    return sum(ord(character) % 2 == 0 for character in response) / len(response) if response else 0.0


def even_share_slowly(prompt: str, response: str, label: str | None, metadata: Mapping[str, Any]) -> float:
    """`even_share` after 20 ms, so that a run lasts long enough on any machine to be interrupted in its middle."""
    time.sleep(0.02)
    return even_share(prompt, response, label, metadata)


def even_share_paced(prompt: str, response: str, label: str | None, metadata: Mapping[str, Any]) -> float:
    """`even_share`, of which a process makes only as many calls as the file $LPRL_PACE says; all, when it is not there.

    So a run is held where a test wants it, and does not end by itself before the test looked.
    """
    number, pace = next(_calls), Path(os.environ[ENV_PACE])
    while number > _allowed(pace):
        time.sleep(0.02)
    return even_share(prompt, response, label, metadata)


def _allowed(pace: Path) -> float:
    try:
        return int(pace.read_text() or 0)
    except FileNotFoundError:
        return float("inf")


def even_share_held(prompt: str, response: str, label: str | None, metadata: Mapping[str, Any]) -> float:
    """`even_share`, held while $LPRL_VOLUMES_ROOT/data/held (`ROWS FILE`) names a file that has as many rows; free without it.

    So a run whose environment a test does not make is held behind a step, in whatever attempt.
    """
    while _is_held(Path(os.environ[ENV_VOLUMES_ROOT]) / "data" / "held"):
        time.sleep(0.02)
    return even_share(prompt, response, label, metadata)


def _is_held(told: Path) -> bool:
    try:
        rows, file = told.read_text().split(maxsplit=1)
        return len(Path(file.strip()).read_text().splitlines()) >= int(rows)
    except FileNotFoundError:
        return False


def even_share_at_leisure(prompt: str, response: str, label: str | None, metadata: Mapping[str, Any]) -> float:
    """`even_share`, for which the first attempt takes half a second a response: it does not end before a test took something from it."""
    time.sleep(0.5 if os.environ.get(ENV_ATTEMPT) == "1" else 0.0)
    return even_share(prompt, response, label, metadata)


def even_share_then_hang(prompt: str, response: str, label: str | None, metadata: Mapping[str, Any]) -> float:
    """`even_share_slowly`, of which the first attempt never returns from the 30th call: its main thread hangs, its reports go on."""
    if next(_calls) == 30 and os.environ.get(ENV_ATTEMPT) == "1":
        time.sleep(1e6)
    return even_share_slowly(prompt, response, label, metadata)


_calls = itertools.count(1)


async def counts_twice(prompt: Any, policy: Any, tools: Any) -> None:
    """Call a tool `count` that counts its calls: an episode that has it for itself hears 1 and 2. Raises ValueError for another one's."""
    await policy.draw()
    said = [json.loads((await tools.call("count")).text)["calls"] for _ in range(2)]
    if said != [1, 2]:
        raise ValueError(f"the tool counted {said}: it is not this episode's own")


async def asks_and_stays(prompt: Any, policy: Any, tools: Any) -> None:
    """Have a tool `python` say something, and keep its sandbox until the episode is ended from without."""
    await policy.draw()
    await tools.call("python", code="print(6 * 7)")
    await asyncio.sleep(3600)

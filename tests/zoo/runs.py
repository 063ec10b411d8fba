"""Families without a table through whole runs in this process: conversion, trainer, pushes, engine, export.

`python -m tests.zoo.runs glm4_moe int4-qat/int4 120` trains the demo's task and prints rewards.
"""

import json
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tests.zoo.families import ALL, Case
from tests.zoo.tiny import save, tiny_config
from tests.zoo.trained import published_names

from lprl_api.errors import UserError
from lprl_api.names import ENV_VOLUMES_ROOT
from lprl_api.spec.topology import Stability
from lprl_api.wire.progress import Control, Progress
from lprl_fixtures.generate import TaskOptions, generate_task
from lprl_fixtures.runs import VOLUME, merged, run_config
from lprl_fixtures.tokenizer import write_tokenizer
from lprl_workload.config import ResolvedPaths
from lprl_workload.convert.export import convert_folder
from lprl_workload.folder.class_model import class_of
from lprl_workload.launch.build import assemble, local_groups
from lprl_workload.launch.export import export_all
from lprl_workload.metrics.configmaps import FileStore
from lprl_workload.metrics.progress import Reporter

PAIRS: dict[str, dict[str, Any]] = {
    "int4-qat/int4": {"training": "int4-qat", "rollout": "int4", "int4": {"group_size": 32, "scope": "all-linear"}},
    "fp8/fp8": {"training": "fp8", "rollout": "fp8"},
    "bf16/bf16": {"training": "bf16", "rollout": "bf16"},
}
LEARNS: dict[str, Any] = {
    "data": {"reward": {"type": "exact"}},
    "algorithm": {
        "name": "grpo", "rollout_batch_size": 32, "samples_per_prompt": 16, "global_batch_size": 512, "entropy_coefficient": 0.005,
    },
    "sampling": {"max_response_tokens": 2},
    "checkpoint": {"every_steps": 1000},
    "trainer": {"recompute": "none", "max_tokens_per_gpu": 16384},
}  # fmt: skip
"""As the examples train it."""


def write_inputs(root: Path, case: Case, prompts: int) -> None:
    """Write ROOT/all/model, as the class begins, and ROOT/all/data."""
    folder = root / VOLUME / "model"
    folder.mkdir(parents=True)
    tokenizer = write_tokenizer(folder)
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.pad_token_id}
    config = tiny_config(case.model_type, {**case.changes, **ids, "vocab_size": len(tokenizer)})
    torch.manual_seed(0)
    published_names(save(class_of({}, config)(config).to(torch.bfloat16), folder))
    generate_task(root / VOLUME / "data", TaskOptions(train=prompts, heldout=max(16, prompts // 16)))


def left_out(root: Path, case: Case, pair: str) -> list[str]:
    """Return the patterns of modules that a conversion's refusals name one after the other, until there is none."""
    found: list[str] = []
    while True:
        own = {"precision": {**PAIRS[pair], "exclude_modules": found}, "rollout_path": {"volume": VOLUME, "path": "model"}}
        fmt = run_config(root, own).rollout_format
        try:
            convert_folder(root / VOLUME / "model", root / "tried", fmt, 1)
        except UserError as error:
            told = re.search("--exclude '(.+)'", error.remedy or "")
            assert case.refused and case.refused in str(error) and told and told[1] not in found, error
            found.append(told[1])
        else:
            shutil.rmtree(root / "tried")
            return found


def ran(root: Path, case: Case, pair: str, changes: dict[str, Any]) -> Path:
    """Convert for the engine and run; returns the run folder."""
    own = {"precision": PAIRS[pair], "job_name": "zoo", "rollout_path": {"volume": VOLUME, "path": "served"}}
    made = run_config(root, merged(own | {"rollout_path": {"volume": VOLUME, "path": "model"}}, changes))
    convert_folder(root / VOLUME / "model", root / VOLUME / "served", made.rollout_format, 1)
    run = run_config(root, merged(own, changes))
    assert run.shape.family == "other" or json.loads((root / VOLUME / "model" / "config.json").read_text()).get("text_config")
    folder = root / VOLUME / "runs" / "small"
    first = Progress(attempt=1, sequence=0, phase="starting", step=0, steps=run.algorithm.steps)
    control = Control(steps=run.algorithm.steps, stability=Stability())
    reporter = Reporter(FileStore(folder / "progress"), first, 60.0, control)
    parts = assemble(run, ResolvedPaths.of(run), 1, reporter, local_groups)
    try:
        parts.loop.run(lambda: False)
        export_all(run, ResolvedPaths.of(run), run.algorithm.steps)
    finally:
        parts.close()
        reporter.close()
    return folder


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return the rows of a run's file."""
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


@dataclass(frozen=True)
class Learned:
    """What a run of the demo's task came to."""

    rewards: tuple[float, ...]
    """Of each step's samples."""
    heldout: tuple[float, ...]
    """Of greedy answers to questions that are not trained on: before the first step, then every 20."""
    k3: float
    """Mean mismatch of trainer and engine."""


def learned(root: Path, case: Case, pair: str, steps: int) -> Learned:
    """Train the demo's task in a folder that volumes are below."""
    write_inputs(root, case, 4096)
    evaluation = {"every_steps": 20, "at_start": True}
    folder = ran(root, case, pair, merged(LEARNS, {"algorithm": {"steps": steps}, "evaluation": evaluation}))
    found = rows(folder, "metrics.jsonl")
    heldout = tuple(row["reward"] for row in rows(folder, "evaluations.jsonl"))
    return Learned(tuple(row["reward"] for row in found), heldout, sum(row["k3"] for row in found) / len(found))


def main(model_type: str, pair: str, steps: str) -> None:
    """Train the demo's task and say how it went."""
    case = next(case for case in ALL if case.model_type == model_type)
    with tempfile.TemporaryDirectory() as root:
        os.environ[ENV_VOLUMES_ROOT] = root
        found = learned(Path(root), case, pair, int(steps))
    last, heldout = sum(found.rewards[-10:]) / 10, [round(reward, 3) for reward in found.heldout]
    print(f"{model_type} {pair}: reward {found.rewards[0]:.3f} -> {last:.3f}, held out {heldout}, K3 {found.k3:.2e}")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The example with a tool, a few steps of it: its model (taught more briefly), its episode, its tool as a process of its own."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.pages import ROOT

from lprl_api.rules.parse import parse_job
from lprl_api.spec.topology import Stability
from lprl_api.wire.progress import Control, Progress
from lprl_fixtures.lookup import write_lookup
from lprl_fixtures.lookup_model import write_lookup_model
from lprl_fixtures.runs import VOLUME, run_config
from lprl_workload.config import ResolvedPaths
from lprl_workload.launch.build import assemble, local_groups
from lprl_workload.metrics.configmaps import FileStore
from lprl_workload.metrics.progress import Reporter

EXAMPLE = yaml.safe_load((ROOT / "examples/40-lookup-tool.yaml").read_text())
STEPS, TRAINED_ON, HELD_OUT = 2, 16, 40
CHANCE = 0.05
"""What a model that does not ask can hardly reach: one in a hundred of 40 is right."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("lookup")
    write_lookup(found / VOLUME / "data", train=64, heldout=HELD_OUT)
    # A third of the conversations in some more steps: it says every token of them, and no test needs it to be surer.
    write_lookup_model(found / VOLUME / "model", steps=150, habits=0, rows=16)
    return found


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    line = [sys.executable, "-m", "lprl_fixtures", "lookup-server", str(root / VOLUME / "data"), "--port", "0"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip().removeprefix("answering on ")
        process.terminate()


def made(root: Path, name: str, episode: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Any]:
    """Run a few steps; returns rows of metrics and evaluations, and the last progress."""
    changes = {
        "job_name": name,
        "data": {"reward": {"type": "exact", "function": None}},
        "episode": episode,
        "algorithm": {"steps": STEPS},
        # A rate five times as high can unlearn asking within two steps, as the rounding of a processor has it.
        "optimizer": {"learning_rate": EXAMPLE["spec"]["optimizer"]["learningRate"]},
        "sampling": {"max_response_tokens": EXAMPLE["spec"]["sampling"]["maxResponseTokens"]},
        "evaluation": {"every_steps": STEPS},
        "checkpoint": {"directory": {"path": f"runs/{name}"}, "every_steps": STEPS, "export_formats": []},
    }
    run, folder = run_config(root, changes), root / VOLUME / "runs" / name
    first, control = Progress(attempt=1, sequence=0, phase="starting", step=0, steps=STEPS), Control(steps=STEPS, stability=Stability())
    reporter = Reporter(FileStore(folder / "progress"), first, 60.0, control)
    parts = assemble(run, ResolvedPaths.of(run), 1, reporter, local_groups)
    try:
        parts.loop.run(lambda: False)
    finally:
        parts.close()
        reporter.close()
    metrics, evaluations = (
        [json.loads(line) for line in (folder / f"{n}.jsonl").read_text().splitlines()] for n in ("metrics", "evaluations")
    )
    return metrics, evaluations, reporter.progress.episodes


def test_the_example_asks_its_tool_and_only_who_asks_is_rewarded(root: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LPRL_VOLUMES_ROOT", str(root))
    episode = parse_job(EXAMPLE).spec.episode
    episode = episode.model_copy(update={"tools": (episode.tools[0].model_copy(update={"url": address}),)})
    metrics, evaluations, told = made(root, "asks", episode.model_dump())
    for row in metrics:
        assert row["failed_episodes"] == row["aborted_episodes"] == row["tool_calls_failed"] == 0
        assert row["tool_calls_ok"] >= TRAINED_ON / 2 and row["turns_per_episode"] > 1.3, row
        assert row["k3"] < 1e-6 and row["logprob_diff"] < 1e-5, "as of a single turn: engine and trainer agree on every drawn token"
    assert all(found["reward"] > 0.3 for found in evaluations), evaluations
    assert told.failed == 0 and told.calls["ok"] == metrics[-1]["tool_calls_ok"]
    with urllib.request.urlopen(address) as answer:
        calls = json.load(answer)["calls"]
    assert calls > sum(row["tool_calls_ok"] for row in metrics) + HELD_OUT, "evaluations ask, too"
    _, alone, nothing = made(root, "alone", {"type": "single-turn"})
    assert all(found["reward"] <= CHANCE for found in alone) and nothing is None
    with urllib.request.urlopen(address) as answer:
        assert json.load(answer)["calls"] == calls

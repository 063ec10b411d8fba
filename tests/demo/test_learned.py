"""The main job as `make demo` runs it: it learns what its prompts ask for, and nothing where the answers do not fit the prompts."""

import subprocess
import sys
from pathlib import Path

import pytest

from lprl_cli.runfolder import RunFolder, find

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]
FIRST, LAST = 5, 10
"""Steps whose mean is the reward at the beginning and in the end."""


def demo(folder: Path, *flags: str) -> tuple[RunFolder, str]:
    """Run the demo into a folder; returns the run and what was printed."""
    line = [sys.executable, "-m", "lprl_cli.main", "demo", "--plain", "--dir", str(folder), *flags]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return find(str(folder / "run")), done.stdout


def rewards(run: RunFolder) -> tuple[float, float, float]:
    """Mean reward of the first steps, of the last ones, and greedy reward on held-out prompts in the end."""
    found = [row["reward"] for row in run.rows("metrics.jsonl")]
    heldout = run.rows("evaluations.jsonl")[-1]["reward"]
    return sum(found[:FIRST]) / FIRST, sum(found[-LAST:]) / LAST, heldout


def test_it_learns_from_random_weights(tmp_path: Path) -> None:
    run, printed = demo(tmp_path / "demo")
    first, last, heldout = rewards(run)
    assert first < 0.3 and last > 0.9 and heldout > 0.8, (first, last, heldout)
    for told in ("Inspecting", "Converting", "Provisioning", "Running", "Succeeded", "checkpoint", "metrics", "report", ".png"):
        assert told in printed, told


def test_it_does_not_learn_from_labels_that_do_not_fit(tmp_path: Path) -> None:
    """The control: a task that could be solved without its prompts would be solved here, too."""
    first, last, heldout = rewards(demo(tmp_path / "demo", "--shuffle-labels")[0])
    assert max(first, last, heldout) < 0.5, (first, last, heldout)

"""The example with a tool, as docs/rollouts.md shows it: it learns to ask; without its tool it stays at chance."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.pages import ROOT

from lprl_cli.runfolder import RunFolder, find

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]
EXAMPLE = ROOT / "examples" / "40-lookup-tool.yaml"


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("lookup") / "volumes"
    line = [sys.executable, "-m", "lprl_fixtures", "lookup", "--model", str(found / "models/lookup"), "--data", str(found / "data/lookup")]
    subprocess.run(line, check=True)
    return found


@pytest.fixture(scope="module")
def address(volumes: Path) -> Iterator[str]:
    line = [sys.executable, "-m", "lprl_fixtures", "lookup-server", str(volumes / "data/lookup"), "--port", "0"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip().removeprefix("answering on ")
        process.terminate()


def ran(volumes: Path, name: str, episode: dict[str, object]) -> RunFolder:
    """Run the example with another episode."""
    manifest = yaml.safe_load(EXAMPLE.read_text())
    manifest["metadata"]["name"], manifest["spec"]["episode"] = name, episode
    (volumes.parent / f"{name}.yaml").write_text(yaml.safe_dump(manifest))
    line = [sys.executable, "-m", "lprl_cli.main", "run", f"{name}.yaml", "--plain"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(line, cwd=volumes.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return find(str(volumes.parent / "runs" / name))


def test_it_learns_to_ask_its_tool(volumes: Path, address: str) -> None:
    episode = yaml.safe_load(EXAMPLE.read_text())["spec"]["episode"]
    episode["tools"][0]["url"] = address
    run = ran(volumes, "asks", episode)
    rows, heldout = run.rows("metrics.jsonl"), [row["reward"] for row in run.rows("evaluations.jsonl")]
    assert heldout[0] < 0.3 and heldout[-1] > 0.9, heldout
    assert all(row["failed_episodes"] == row["tool_calls_failed"] == 0 for row in rows)
    assert all(row["k3"] < 1e-6 for row in rows), "as of single turns"
    first, last = rows[0], rows[-1]
    assert last["tool_calls_ok"] > 2 * first["tool_calls_ok"] and last["turns_per_episode"] > 2


def test_without_its_tool_it_stays_at_chance(volumes: Path) -> None:
    """The control: a task that could be solved without asking would be solved here, too."""
    heldout = [row["reward"] for row in ran(volumes, "alone", {"type": "single-turn"}).rows("evaluations.jsonl")]
    assert max(heldout) < 0.1, heldout

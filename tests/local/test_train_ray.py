"""The driver on a real local Ray: placements and transports. Every run ends like the one in one process."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.local.conftest import SPLIT
from tests.unit.lprl_workload.agent.sandboxes import COUNTER, TOLD

from lprl_api.names import ENV_SANDBOX_COMMANDS
from lprl_fixtures.runs import merged

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def plain(driver: Any, train_root: Path) -> Any:
    """The uninterrupted run in one process."""
    return driver(None, train_root, "plain").wait()


def test_colocated_equals_one_process(driver: Any, ray_nodes: Any, train_root: Path, plain: Any) -> None:
    ray_nodes.worker(trainer=1, rollout=1)
    run = driver(ray_nodes, train_root, "colocated").wait()
    assert run.outcome() == plain.outcome()
    assert json.loads(run.term.read_text())["reason"] == "Succeeded"


@pytest.mark.parametrize(("transport", "aside"), [("auto", 1), ("disk", 0)])
def test_split_equals_one_process(driver: Any, ray_nodes: Any, train_root: Path, plain: Any, transport: str, aside: int) -> None:
    """`aside`: engines that evaluate beside training, which broadcasts pass by meanwhile."""
    ray_nodes.worker(trainer=1)
    ray_nodes.worker(rollout=2)
    changes = merged(SPLIT, {"weight_sync": {"transport": transport}, "evaluation": {"engines": aside}})
    run = driver(ray_nodes, train_root, f"split-{transport}", changes=changes).wait()
    assert run.outcome() == plain.outcome()


def test_episodes_of_two_engines_have_sandboxes_of_their_own_and_leave_none(
    driver: Any, ray_nodes: Any, train_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines ask, the driver starts: processes in place of pods, at most three at a time."""
    ray_nodes.worker(trainer=1)
    ray_nodes.worker(rollout=2)
    (tmp_path / "counter.py").write_text(COUNTER)
    monkeypatch.setenv(ENV_SANDBOX_COMMANDS, json.dumps({"counters": {"command": "python counter.py {port}", "folder": str(tmp_path)}}))
    sandbox = {"warm_pool": "counters", "max_concurrent": 3, "claim_seconds": 300}
    episode = {"type": "python", "function": "lprl_fixtures.runs:counts_twice", "tools": [{"name": "count", "sandbox": sandbox, **TOLD}]}
    changes = merged(SPLIT, {"episode": episode, "algorithm": {"steps": 1}, "evaluation": None, "sampling": {"max_response_tokens": 4}})
    run = driver(ray_nodes, train_root, "sandboxes", changes=changes).wait()
    row = json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["failed_episodes"] == 0 and row["sandbox_wait_seconds"] > 0
    left = [path for path in Path("/proc").glob("[0-9]*/cwd") if _points_to(path, tmp_path)]
    assert not left, "processes of sandboxes run on"


def _points_to(link: Path, folder: Path) -> bool:
    try:
        return link.readlink() == folder
    except OSError:
        return False

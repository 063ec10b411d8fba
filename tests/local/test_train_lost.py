"""The driver on a real local Ray: lost engines, ranks, drivers and nodes. Every run ends like the one nothing happens to."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from tests.local.conftest import PACED, RESPONSES, SPLIT

from lprl_api.names import ExitCode
from lprl_fixtures.runs import merged

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200)]
LONG = {"algorithm": {"steps": 30}, "evaluation": {"every_steps": 10}, "progress": {"interval_seconds": 0.2}}


@pytest.fixture(scope="module")
def plain_long(driver: Any, train_root: Path) -> Any:
    return driver(None, train_root, "plain-long", changes=LONG).wait()


@pytest.mark.parametrize("split", [False, True], ids=["colocated", "split"])
def test_killed_engine_rank_and_driver_change_nothing(driver: Any, ray_nodes: Any, train_root: Path, plain_long: Any, split: bool) -> None:
    """One run: an engine killed, then a trainer rank, then the driver; the second attempt ends like the uninterrupted run."""
    for slots in ({"trainer": 1}, {"rollout": 2}) if split else ({"trainer": 1, "rollout": 1},):
        ray_nodes.worker(**slots)
    name, changes = f"killed-{'split' if split else 'colocated'}", merged(merged(LONG, PACED), SPLIT if split else {})
    (train_root / f"{name}.pace").write_text(str(RESPONSES * 9))
    run = driver(ray_nodes, train_root, name, changes=changes)
    run.until(lambda p: p["step"] >= 3)
    os.kill(run.actors("EngineActorHost")[0], signal.SIGKILL)
    run.up_to(13)
    run.until(lambda p: p["engineRestarts"] == 1 and p["step"] >= 7)
    os.kill(run.actors("TrainActorHost")[0], signal.SIGKILL)
    run.up_to(21)
    run.until(lambda p: p["trainerRestarts"] == 1 and p["step"] >= 11)
    run.process.kill()
    run.process.wait()
    run.let_go()
    again = driver(ray_nodes, train_root, name, attempt=2, changes=changes).wait()
    assert again.outcome() == plain_long.outcome()
    deadline = time.monotonic() + 180
    while again.actors("EngineActorHost") + again.actors("TrainActorHost"):
        assert time.monotonic() < deadline, "actors outlive their drivers"
        time.sleep(0.2)


def test_two_ranks_and_two_engines_resume_exactly_after_sigterm(driver: Any, ray_nodes: Any, train_root: Path) -> None:
    for _ in range(2):
        ray_nodes.worker(trainer=1, rollout=1)
    changes = merged(LONG, {"ranks": {"nodes": 2, "trainer_ranks": 2, "data_parallel": 2, "engines": 2, "trainer_nodes": 2}})
    whole = driver(ray_nodes, train_root, "two", changes=changes).wait()
    (train_root / "two-cut.pace").write_text(str(RESPONSES * 12))
    cut = driver(ray_nodes, train_root, "two-cut", changes=merged(changes, PACED))
    cut.until(lambda p: p["step"] >= 5)
    cut.process.terminate()
    cut.let_go()
    cut.wait(ExitCode.SUSPENDED)
    assert json.loads(cut.term.read_text())["reason"] == "Suspended"
    assert driver(ray_nodes, train_root, "two-cut", attempt=2, changes=changes).wait().outcome() == whole.outcome()


def test_a_lost_worker_node_that_comes_back_is_waited_for(driver: Any, ray_nodes: Any, train_root: Path, plain_long: Any) -> None:
    node = ray_nodes.worker(trainer=1, rollout=1)
    (train_root / "node.pace").write_text(str(RESPONSES * 9))
    run = driver(ray_nodes, train_root, "node", changes=merged(LONG, PACED))
    run.until(lambda p: p["step"] >= 3)
    os.killpg(node.pid, signal.SIGKILL)
    run.let_go()
    ray_nodes.worker(trainer=1, rollout=1)
    assert run.wait().outcome() == plain_long.outcome()


def test_a_driver_that_is_asked_to_go_while_it_rebuilds_ends_in_seconds(driver: Any, ray_nodes: Any, train_root: Path) -> None:
    """Its workers went before it, as when a node is drained: nothing can be saved, and nothing comes back."""
    node = ray_nodes.worker(trainer=1, rollout=1)
    run = driver(ray_nodes, train_root, "leaving", changes=merged(LONG, {"algorithm": {"steps": 5000}}))
    run.until(lambda p: p["step"] >= 3)
    os.killpg(node.pid, signal.SIGKILL)
    run.until(lambda p: p["trainerRestarts"] == 1)
    run.process.terminate()
    run.wait(ExitCode.TERMINATED)
    said = json.loads(run.term.read_text())
    assert said["reason"] == "HeadLost" and "nothing was there to save" in said["message"], said

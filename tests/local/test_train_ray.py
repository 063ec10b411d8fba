"""The driver on a real local Ray: placements, transports, lost engines, ranks and drivers. Every run ends like the one in one process."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from lprl_api.names import ExitCode
from lprl_fixtures.runs import merged

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def plain(driver: Any, train_root: Path) -> Any:
    """The uninterrupted run in one process."""
    return driver(None, train_root, "plain").wait()


SPLIT = {"ranks": {"placement": "split", "nodes": 2, "rollout_nodes": 1, "engines": 2}, "weight_sync": {"transport": "auto"}}


def test_colocated_equals_one_process(driver: Any, ray_nodes: Any, train_root: Path, plain: Any) -> None:
    ray_nodes.worker(trainer=1, rollout=1)
    run = driver(ray_nodes, train_root, "colocated").wait()
    assert run.outcome() == plain.outcome()
    assert json.loads(run.term.read_text())["reason"] == "Succeeded"


@pytest.mark.parametrize("transport", ["auto", "disk"])
def test_split_equals_one_process(driver: Any, ray_nodes: Any, train_root: Path, plain: Any, transport: str) -> None:
    ray_nodes.worker(trainer=1)
    ray_nodes.worker(rollout=2)
    run = driver(ray_nodes, train_root, f"split-{transport}", changes=merged(SPLIT, {"weight_sync": {"transport": transport}})).wait()
    assert run.outcome() == plain.outcome()


LONG = {"algorithm": {"steps": 30}, "evaluation": {"every_steps": 10}, "progress": {"interval_seconds": 0.2}}


@pytest.fixture(scope="module")
def plain_long(driver: Any, train_root: Path) -> Any:
    return driver(None, train_root, "plain-long", changes=LONG).wait()


@pytest.mark.parametrize("split", [False, True], ids=["colocated", "split"])
def test_killed_engine_rank_and_driver_change_nothing(driver: Any, ray_nodes: Any, train_root: Path, plain_long: Any, split: bool) -> None:
    """One run: an engine killed, then a trainer rank, then the driver; the second attempt ends like the uninterrupted run."""
    for slots in ({"trainer": 1}, {"rollout": 2}) if split else ({"trainer": 1, "rollout": 1},):
        ray_nodes.worker(**slots)
    name, changes = f"killed-{'split' if split else 'colocated'}", merged(LONG, SPLIT if split else {})
    run = driver(ray_nodes, train_root, name, changes=changes)
    run.until(lambda p: p["step"] >= 3)
    os.kill(run.actors("EngineActorHost")[0], signal.SIGKILL)
    run.until(lambda p: p["engineRestarts"] == 1 and p["step"] >= 7)
    os.kill(run.actors("TrainActorHost")[0], signal.SIGKILL)
    run.until(lambda p: p["trainerRestarts"] == 1 and p["step"] >= 11)
    run.process.kill()
    run.process.wait()
    again = driver(ray_nodes, train_root, name, attempt=2, changes=changes).wait()
    assert again.outcome() == plain_long.outcome()
    deadline = time.monotonic() + 30
    while again.actors("EngineActorHost") + again.actors("TrainActorHost"):
        assert time.monotonic() < deadline, "actors outlive their drivers"
        time.sleep(0.2)


def test_an_engine_and_a_rank_that_hang_are_replaced_within_their_limit(
    driver: Any, ray_nodes: Any, train_root: Path, plain_long: Any
) -> None:
    """Their processes live and say nothing; each is charged to its own budget, and the attempt goes on."""
    ray_nodes.worker(trainer=1, rollout=1)
    stall_s = 36
    run = driver(ray_nodes, train_root, "hung", changes=merged(LONG, {"stall_seconds": stall_s}))
    for step, kind, told in ((3, "EngineActorHost", "engine 0 lost at step"), (12, "TrainActorHost", "trainer lost at step")):
        run.until(lambda p, step=step: p["step"] >= step)
        os.kill(run.actors(kind)[0], signal.SIGSTOP)
        before = time.monotonic()
        run.until(lambda _, told=told: told in run.log.read_text())
        assert time.monotonic() - before < stall_s / 2 + 10
    assert run.wait().outcome() == plain_long.outcome()
    found = json.loads(run.term.read_text())["progress"]
    assert (found["engineRestarts"], found["trainerRestarts"]) == (1, 1)
    assert "engine 0 on 127.0.0.1 did not answer for" in run.log.read_text()
    assert "trainer: " in run.log.read_text() and "rank 0 on 127.0.0.1 did not answer for 18 s" in run.log.read_text()


def test_two_ranks_and_two_engines_resume_exactly_after_sigterm(driver: Any, ray_nodes: Any, train_root: Path) -> None:
    for _ in range(2):
        ray_nodes.worker(trainer=1, rollout=1)
    changes = merged(LONG, {"ranks": {"nodes": 2, "trainer_ranks": 2, "data_parallel": 2, "engines": 2, "trainer_nodes": 2}})
    whole = driver(ray_nodes, train_root, "two", changes=changes).wait()
    cut = driver(ray_nodes, train_root, "two-cut", changes=changes)
    cut.until(lambda p: p["step"] >= 5)
    cut.process.terminate()
    cut.wait(ExitCode.SUSPENDED)
    assert json.loads(cut.term.read_text())["reason"] == "Suspended"
    assert driver(ray_nodes, train_root, "two-cut", attempt=2, changes=changes).wait().outcome() == whole.outcome()


def test_a_lost_worker_node_that_comes_back_is_waited_for(driver: Any, ray_nodes: Any, train_root: Path, plain_long: Any) -> None:
    node = ray_nodes.worker(trainer=1, rollout=1)
    run = driver(ray_nodes, train_root, "node", changes=LONG)
    run.until(lambda p: p["step"] >= 3)
    os.killpg(node.pid, signal.SIGKILL)
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

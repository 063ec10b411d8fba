"""Placement on a real local Ray of two nodes: engines larger than a node, replacements where the dead were, and what waits for room."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from benchmarks.handover import Engines, make_run
from tests.local.conftest import RAY_ENV, Ray

from lprl_api.wire.runconfig import RunConfig
from lprl_workload.config import ResolvedPaths
from lprl_workload.launch.ray_link import CONNECT_DEADLINE_S, wait_healthy
from lprl_workload.process.errors import DeadlineError

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
LIMIT_S = 180.0
NOWHERE = ResolvedPaths(*[Path("/nowhere")] * 5, None, None)


@pytest.fixture(scope="module")
def nodes(ray_head: Ray) -> Iterator[None]:
    """Two nodes of two slots each; this process is the driver."""
    os.environ.update(RAY_ENV)
    for _ in range(2):
        ray_head.worker(rollout=2)
    wait_healthy(ray_head.address, CONNECT_DEADLINE_S)
    ray.init(address=ray_head.address, log_to_driver=False)
    until(lambda: ray.cluster_resources().get("lprl_rollout") == 4)
    yield
    ray.shutdown()


def until(condition: Any) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def run_of(root: Path, engines: int, slots: int) -> RunConfig:
    run = make_run(root, 64, 1024)
    return run.model_copy(update={"ranks": run.ranks.model_copy(update={"engines": engines, "slots_per_engine": slots})})


def free() -> float:
    return ray.available_resources().get("lprl_rollout", 0.0)


@pytest.mark.usefixtures("nodes")
def test_an_engine_of_two_nodes_takes_both_comes_back_where_it_was_and_gives_them_back(train_root: Path) -> None:
    group = Engines(run_of(train_root, 1, 4), NOWHERE)
    before = group._places[0]
    assert before is not None
    until(lambda: free() == 0)
    os.kill(before.pid, signal.SIGKILL)
    until(lambda: not group._answers(0))
    assert group.replace_lost() == [0]
    after = group._places[0]
    assert after is not None and after.node == before.node and after.pid != before.pid and group._turns == [0]
    group.close()
    until(lambda: free() == 4)


@pytest.mark.usefixtures("nodes")
def test_a_bundle_without_a_node_is_named_with_what_the_nodes_offer(train_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LPRL_PLACE_DEADLINE_S", "5")
    with pytest.raises(DeadlineError) as caught:
        Engines(run_of(train_root, 1, 6), NOWHERE)
    words = str(caught.value)
    assert "placing engines: 1 of 1 did not answer" in words
    assert "waiting: bundle 3 of 3 of engine 0 (2 lprl_rollout, on a node of its own)" in words
    assert words.count("2 of 2 free") == 2 and "\n" not in words

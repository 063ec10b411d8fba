"""The driver on a real local Ray with more than one trainer rank and engine. Apart from test_train_ray so that it runs in another lane."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.local.test_train_ray import LONG

from lprl_api.names import ExitCode
from lprl_fixtures.runs import merged

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200)]


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

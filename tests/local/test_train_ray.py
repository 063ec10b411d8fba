"""The driver on a real local Ray: placements and transports. Every run ends like the one in one process."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.local.conftest import SPLIT

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

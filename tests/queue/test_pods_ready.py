"""Kueue's own limit for pods that do not come (`waitForPodsReady`): its back-off and its count are kept, and its end is told."""

from collections.abc import Callable

import pytest
from tests.control_plane.harness.operator import Operator
from tests.control_plane.harness.plane import KIND, POOL
from tests.control_plane.harness.world import World
from tests.queue.conftest import settings_of
from tests.queue.team import Team

PATIENCE = "{timeout: 20s, blockAdmission: false, requeuingStrategy: {timestamp: Eviction, backoffLimitCount: 1, backoffBaseSeconds: 2}}"


@pytest.fixture(scope="module")
def kueue_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The kit's, and a limit."""
    return settings_of(tmp_path_factory.mktemp("kueue"), f"waitForPodsReady: {PATIENCE}")


def test_nodes_that_never_come_end_in_kueues_words(operator: Operator, make_world: Callable[..., World]) -> None:
    world = make_world()
    team = Team(world)
    nowhere = {"workers": {"nodeSelector": {KIND: "none"}}}
    team.submit("lost", podTemplate={"nodeSelector": {POOL: world.namespace}, **nowhere})
    team.held("lost", "RequeuingLimitExceeded")  # Kueue's tries were counted over the job's attempts
    assert team.workload("lost")["spec"]["active"] is False
    assert (world.status("lost").get("restartsUsed", 0), team.order()) == (0, [])

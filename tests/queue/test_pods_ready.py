"""Kueue's own limit for pods that do not come (`waitForPodsReady`): its back-off and its count are kept, and its end holds."""

from collections.abc import Callable

import pytest
from tests.control_plane.harness.operator import Operator
from tests.control_plane.harness.plane import KIND, POOL
from tests.control_plane.harness.together import apart
from tests.control_plane.harness.world import World
from tests.queue.conftest import settings_of
from tests.queue.team import Team

PATIENCE = "{timeout: 20s, blockAdmission: false, requeuingStrategy: {timestamp: Eviction, backoffLimitCount: 1, backoffBaseSeconds: 2}}"

NOWHERE = {"nodeSelector": {KIND: "none"}}
GIVEN_UP = "RequeuingLimitExceeded"
KEPT_S = 40
"""How long Kueue leaves what it deactivated: longer than the operator takes to read why."""


@pytest.fixture(scope="module")
def kueue_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The kit's, and limits."""
    kept = f"objectRetentionPolicies: {{workloads: {{afterDeactivatedByKueue: {KEPT_S}s}}}}"
    return settings_of(tmp_path_factory.mktemp("kueue"), f"waitForPodsReady: {PATIENCE}\n{kept}")


def training(world: World) -> None:
    """Its tries are counted over the job's attempts; when Kueue has taken its RayCluster away, another one would walk around the limit."""
    team = Team(world)
    team.submit("lost", podTemplate={"nodeSelector": {POOL: world.namespace}, "workers": NOWHERE})
    team.held("lost", GIVEN_UP)
    assert team.workload("lost")["spec"]["active"] is False
    assert (world.status("lost").get("restartsUsed", 0), team.order()) == (0, [])
    found = world.wait_phase("lost", "Failed")
    assert (found["failures"][-1]["reason"], found.get("restartsUsed", 0)) == ("ClusterDeleted", 0)
    assert GIVEN_UP in found["failures"][-1]["message"]

    def gone() -> bool:
        owners = {o["kind"] for w in team.workloads() for o in w["metadata"].get("ownerReferences", ())}
        return "RayCluster" not in owners and not world.of("RayCluster")

    world.wait("nothing of its training is left", gone)


def inspection(world: World) -> None:
    """So is an inspection."""
    team = Team(world)
    team.submit("unseen", podTemplate={"nodeSelector": {POOL: world.namespace}, "conversion": NOWHERE})
    team.says("unseen", "queued: ", GIVEN_UP)
    found = world.wait_phase("unseen", "Failed")
    assert found["failures"][-1]["reason"] == "InspectionFailed"
    assert GIVEN_UP in found["failures"][-1]["message"]
    world.wait("nothing of it is left", lambda: not team.workloads() and not world.of("Job"))


def test_nodes_that_never_come_end_in_kueues_words(operator: Operator, make_world: Callable[..., World]) -> None:
    apart(make_world, {s.__name__: s for s in (training, inspection)})

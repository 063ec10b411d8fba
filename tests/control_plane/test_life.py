"""The whole life of a job on a real control plane: real Job controller, scheduler and KubeRay; pods are played."""

from tests.control_plane.harness.manifests import toy
from tests.control_plane.harness.operator import Operator
from tests.control_plane.harness.world import World


def test_from_apply_to_succeeded(operator: Operator, world: World) -> None:
    world.apply(toy("toy", world.namespace))
    status = world.wait_phase("toy", "Succeeded")
    assert status["attempt"] == 1
    assert status["restartsUsed"] == 0
    assert status["training"]["summary"] == "4/4"
    assert status["conversion"]["progress"] == "2/2"
    assert {c["type"]: c["status"] for c in status["conditions"]} == {
        "Validated": "True",
        "Inspected": "True",
        "Converted": "True",
        "ClusterReady": "False",
        "Progressing": "False",
        "TrainingStable": "Unknown",
        "Suspended": "False",
        "Complete": "True",
        "Failed": "False",
    }
    world.check_fence("toy")
    world.wait("its cluster gone", lambda: not world.of("RayCluster") and not world.pods("head"))

"""A job whose tool names a pool, from the operator's side: told before a cluster is made, rendered rights, and a life to its end."""

from typing import Any

from tests.control_plane.harness.manifests import toy
from tests.control_plane.harness.operator import Operator
from tests.control_plane.harness.world import World
from tests.sandbox.given import pool, template

from lprl_operator.resources.rbac import CLAIMS

TOOL = {"name": "python", "sandbox": {"warmPool": "python"}, "description": "Runs code.", "parameters": {"type": "object"}}
EPISODE: dict[str, Any] = {"type": "tools", "tools": [TOOL]}


def test_a_job_waits_for_its_pool_without_taking_a_node_and_then_runs(operator: Operator, world: World) -> None:
    world.apply(toy("sums", world.namespace, episode=EPISODE))
    told = world.wait_reason("sums", "Inspected", "SandboxPoolNotReady")
    where = "spec.episode.tools[0].sandbox.warmPool: SandboxWarmPool python: "
    world.wait(
        "what is missing",
        lambda: f"{where}there is none of that name in namespace {world.namespace}" in world.condition("sums", "Inspected")["message"],
    )
    assert told["status"] == "False" and not world.of("RayCluster") and world.events("sums")["SandboxPoolNotReady"] >= 1
    pool(world, 2)
    world.wait("that none is ready", lambda: f"{where}0 of 2 sandboxes are ready" in world.condition("sums", "Inspected")["message"])
    assert not world.of("RayCluster")
    template(world)
    roles = world.wait("what the driver may do", lambda: world.of("Role"))
    assert CLAIMS in roles[0]["rules"] and len(roles[0]["rules"]) == 2
    world.wait_phase("sums", "Succeeded")

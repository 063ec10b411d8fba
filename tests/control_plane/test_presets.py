"""The six presets on simulated GPU nodes: real scheduler, real KubeRay; every GPU worker on its own node."""

from collections.abc import Callable

from tests.control_plane.harness.manifests import preset
from tests.control_plane.harness.operator import Operator
from tests.control_plane.harness.plane import KIND, ControlPlane
from tests.control_plane.harness.world import World

from lprl_api.catalog.presets import PRESETS

LARGEST = "kimi-k2-thinking-int4"
DRIVER = {"step_s": 0.0, "report_s": 0.5, "hold_at": 2}
GO = {"step_s": 0.0, "report_s": 0.5}


def check_workers(world: World, name: str) -> None:
    """Every worker of the preset is on a GPU node of its own, the head on a CPU node."""
    wanted = PRESETS[name].nodes
    mine = [p for p in world.pods("workers") if p["metadata"]["labels"]["lprl.dev/job"] == name]
    assert len(mine) == wanted
    assert len({p["spec"]["nodeName"] for p in mine}) == wanted
    assert all("-gpu-" in p["spec"]["nodeName"] for p in mine)
    gpus = [p["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] for p in mine]
    assert gpus == [str(PRESETS[name].gpus_per_node)] * wanted
    heads = [p for p in world.pods("head") if p["metadata"]["labels"]["lprl.dev/job"] == name]
    assert [h["spec"]["nodeSelector"][KIND] for h in heads] == ["cpu"]
    assert world.status(name)["nodes"]["summary"] == f"{wanted}/{wanted}"


def test_five_presets_side_by_side(operator: Operator, make_world: Callable[..., World]) -> None:
    some = [n for n in PRESETS if n != LARGEST]
    world = make_world(gpu_nodes=sum(PRESETS[n].nodes for n in some))
    for name in some:
        world.apply(preset(name, world.namespace, DRIVER))
    for name in some:
        world.wait_phase(name, "Running", seconds=900)
        assert world.condition(name, "ClusterReady")["status"] == "True"
        check_workers(world, name)
    for name in some:
        world.script(name, **GO)
    for name in some:
        status = world.wait_phase(name, "Succeeded", seconds=900)
        assert status["training"]["step"] == PRESETS[name].steps
        assert status["attempt"] == 1
        world.check_fence(name)


def test_the_largest_waits_for_its_last_node(plane: ControlPlane, operator: Operator, make_world: Callable[..., World]) -> None:
    world = make_world(gpu_nodes=31)
    world.apply(preset(LARGEST, world.namespace, DRIVER))

    def short() -> str | None:
        message: str = world.condition(LARGEST, "ClusterReady").get("message", "")
        return message if message.startswith("31/32 workers; 1 unschedulable: ") else None

    message = world.wait("31/32 workers; 1 unschedulable", short, seconds=900)
    assert message is not None
    assert "Insufficient nvidia.com/gpu" in message or "didn't match pod anti-affinity rules" in message
    assert world.status(LARGEST)["nodes"]["summary"] == "31/32"
    assert world.status(LARGEST)["phase"] == "Provisioning"
    plane.add_gpu_nodes(world.namespace, 1, first=31)
    world.wait_phase(LARGEST, "Running", seconds=900)
    check_workers(world, LARGEST)
    world.script(LARGEST, **GO)
    assert world.wait_phase(LARGEST, "Succeeded")["attempt"] == 1
    world.check_fence(LARGEST)
    world.wait("its workers gone", lambda: not world.pods("workers"))

"""The preset of 32 nodes with 8 GPUs under topology aware scheduling, on 40 nodes in racks of four, racks in two blocks."""

from typing import Any

from tests.control_plane.harness.manifests import Manifest, merged, preset
from tests.control_plane.harness.plane import KIND, POOL
from tests.control_plane.harness.world import World
from tests.queue.team import QUEUE, V1, Team
from tests.queue.topology import RACK

BLOCK = "example.com/block"
LARGEST = "kimi-k2-thinking-int4"
RACK_NODES, BLOCK_RACKS, NODES = 4, 8, 40
HOLDS = {"step_s": 0.2, "hold_at": 1}
STEPS = 4


def job(world: World, name: str, near: dict[str, Any], base: str = LARGEST, nodes: int | None = None) -> Manifest:
    """A preset under another name, placed by its field."""
    found = preset(base, world.namespace, HOLDS)
    found["metadata"] |= {"name": name, "labels": {QUEUE: "team"}}
    more: Manifest = {"algorithm": {"steps": STEPS}, "podTemplate": {"topology": near}}
    found["spec"] = merged(found["spec"], more | ({"topology": {"nodes": nodes}} if nodes else {}))
    return found


def places(world: World, name: str) -> dict[str, list[tuple[str, str]]]:
    """(block, rack) of each worker, by its group."""
    labels = {n["metadata"]["name"]: n["metadata"]["labels"] for n in world.api.list("Node", selector=f"{POOL}={world.namespace}")}
    found: dict[str, list[tuple[str, str]]] = {}
    for pod in world.of("Pod", f"lprl.dev/job={name},ray.io/node-type=worker"):
        at = labels[pod["spec"]["nodeName"]]
        found.setdefault(pod["metadata"]["labels"]["ray.io/group"], []).append((at[BLOCK], at[RACK]))
    return found


def make_racks(world: World) -> str:
    """Label the nodes, GPU nodes four a rack and 32 the first block; returns the flavor that knows of them."""
    flavor = f"racks-{world.namespace}"
    levels = [{"nodeLabel": label} for label in (BLOCK, RACK, "kubernetes.io/hostname")]
    world.api.ensure({"apiVersion": V1, "kind": "Topology", "metadata": {"name": flavor}, "spec": {"levels": levels}})
    spec = {"nodeLabels": {POOL: world.namespace}, "topologyName": flavor}
    world.api.ensure({"apiVersion": V1, "kind": "ResourceFlavor", "metadata": {"name": flavor}, "spec": spec})
    nodes = sorted(n["metadata"]["name"] for n in world.api.list("Node", selector=f"{POOL}={world.namespace},{KIND}=gpu"))
    for place, node in enumerate(nodes):
        rack = place // RACK_NODES
        world.api.patch("Node", None, node, {"metadata": {"labels": {BLOCK: f"b{rack // BLOCK_RACKS}", RACK: f"r{rack}"}}})
    for node in world.api.list("Node", selector=f"{POOL}={world.namespace},{KIND}=cpu"):
        world.api.patch("Node", None, node["metadata"]["name"], {"metadata": {"labels": {BLOCK: "heads", RACK: "heads"}}})
    return flavor


def large_preset(world: World) -> None:
    """A block for the whole job, a rack for each pipeline stage, a preferred rack, and what fits nowhere and says so."""
    team = Team(world, cpu="20000", memory="200Ti", gpu="2000", flavor=make_racks(world))
    world.apply(job(world, "block", {"required": BLOCK}))
    world.wait_phase("block", "Running")
    (whole,) = places(world, "block").values()
    assert len(whole) == 32 and {block for block, _ in whole} == {"b0"}, whole
    # No rack has eight nodes: preferred, the next wider level that has them is taken; required, nothing is.
    world.apply(job(world, "near", {"preferred": RACK}, "qwen3-4b-fp8", 2 * RACK_NODES))
    world.wait_phase("near", "Running")
    (both,) = places(world, "near").values()
    assert len(both) == 2 * RACK_NODES and {block for block, _ in both} == {"b1"}, both
    team.finish("near")
    world.apply(job(world, "wide", {"required": RACK}, "qwen3-4b-fp8", 2 * RACK_NODES))
    team.held("wide", "Pending", "topology", f"allows to fit only {RACK_NODES} out of {2 * RACK_NODES} pod(s)")
    # Two racks are free: a job of eight stages, a rack each, waits for the others.
    world.apply(job(world, "stages", {"required": RACK, "groupNodes": RACK_NODES}))
    team.held("stages", "Pending", "topology")
    team.finish("block")
    world.wait_phase("stages", "Running")
    groups = places(world, "stages")
    assert sorted(groups) == [f"workers-{n}" for n in range(8)]
    assert all(len(at) == RACK_NODES and len(set(at)) == 1 for at in groups.values()), groups
    assert len({rack for at in groups.values() for _, rack in at}) == 8
    assert team.order().count(("stages", 1)) == 1 and ("wide", 1) not in team.order()
    team.finish("stages")
    world.patch("wide", podTemplate={"topology": {"required": None, "preferred": RACK}})
    world.wait_phase("wide", "Running")  # what is held is made anew with a correction
    team.finish("wide")

"""Topology aware scheduling: what a job's annotation asks for reaches Kueue, which keeps it or says why it cannot."""

from typing import Any

from tests.control_plane.harness.manifests import preset
from tests.control_plane.harness.plane import POOL
from tests.control_plane.harness.world import World
from tests.queue.team import QUEUE, V1, Team

RACK, REQUIRED = "example.com/rack", "kueue.x-k8s.io/podset-required-topology"
NODES = 6


def gpu_job(world: World, name: str, nodes: int) -> dict[str, Any]:
    manifest = preset("qwen3-4b-fp8", world.namespace, {"step_s": 0.2, "hold_at": 1})
    manifest["metadata"] |= {"name": name, "labels": {QUEUE: "team"}, "annotations": {REQUIRED: RACK}}
    manifest["spec"]["algorithm"] = {**manifest["spec"].get("algorithm", {}), "steps": 4}
    manifest["spec"]["topology"] = {**manifest["spec"]["topology"], "nodes": nodes}
    return manifest


def racks(world: World, job: str) -> set[str]:
    """Where a job's workers run."""
    nodes = {p["spec"]["nodeName"] for p in world.of("Pod", f"lprl.dev/job={job},ray.io/node-type=worker") if p["spec"].get("nodeName")}
    return {world.api.get("Node", None, node)["metadata"]["labels"][RACK] for node in nodes}


def required_rack(world: World) -> None:
    """A rack that is large enough is kept to; what fits none waits, and says so."""
    flavor = f"tas-{world.namespace}"
    levels = [{"nodeLabel": RACK}, {"nodeLabel": "kubernetes.io/hostname"}]
    world.api.ensure({"apiVersion": V1, "kind": "Topology", "metadata": {"name": flavor}, "spec": {"levels": levels}})
    spec = {"nodeLabels": {POOL: world.namespace}, "topologyName": flavor}
    world.api.ensure({"apiVersion": V1, "kind": "ResourceFlavor", "metadata": {"name": flavor}, "spec": spec})
    for place, node in enumerate(world.api.list("Node", selector=f"{POOL}={world.namespace}")):
        world.api.patch("Node", None, node["metadata"]["name"], {"metadata": {"labels": {RACK: f"r{place % 2}"}}})
    team = Team(world, cpu="4000", memory="40000Gi", gpu="400", flavor=flavor)
    world.apply(gpu_job(world, "fits", 2))
    world.wait_phase("fits", "Running")
    sets = {s["name"]: s.get("topologyRequest") for s in team.workload("fits")["spec"]["podSets"]}
    assert [r["required"] for r in sets.values() if r and "required" in r] == [RACK], sets
    assert len(racks(world, "fits")) == 1
    world.apply(gpu_job(world, "wide", NODES - 1))
    team.held("wide", "topology")
    team.finish("fits")

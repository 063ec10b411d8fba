"""What is lost while another job waits for the same quota: a restart keeps Workload, RayCluster and quota, whatever was the cause."""

from collections.abc import Iterable
from functools import partial

from tests.control_plane.harness.api import ApiError, Document
from tests.control_plane.harness.world import World
from tests.queue.team import ONE, Team

HOLDS = {"hold_at": 3}
BACKOFF_S = 15


def _two(world: World) -> tuple[Team, str]:
    """A job that trains, and one that waits for its quota; returns the uid of the first one's Workload."""
    team = Team(world, cpu=ONE)
    team.submit("first", HOLDS, steps=8)
    world.wait(
        "the first has a checkpoint", lambda: (world.status("first").get("training", {}).get("checkpoint") or {}).get("step", 0) >= 2
    )
    uid = str(team.workload("first")["metadata"]["uid"])
    team.submit("second")
    team.held("second", "Pending", "insufficient")
    return team, uid


def _kept(world: World, team: Team, uid: str, attempts: int, *told: str, charged: int) -> None:
    """The first went on in what it had, and the second began when it had ended."""
    world.wait(f"attempt {attempts} of the first", lambda: ("first", attempts) in team.order())
    assert team.workload("first")["metadata"]["uid"] == uid
    team.held("second", "Pending", "insufficient")
    found = team.finish("first")
    assert (found["attempt"], found.get("restartsUsed", 0), found["cluster"]) == (attempts, charged, "first-a1")
    assert tuple(f["reason"] for f in found.get("failures", ())) == told, found
    world.wait_phase("second", "Succeeded")
    assert team.order() == [*(("first", n + 1) for n in range(attempts)), ("second", 1)]
    team.uncharged("second", 1)


def _pods(world: World, role: str) -> list[Document]:
    return [p for p in world.pods(role) if p["metadata"]["labels"]["lprl.dev/job"] == "first"]


def _evict(world: World, pods: Iterable[Document]) -> None:
    """As `kubectl drain` does it, again where an API server that has much else to do gives no answer."""

    def evicted(name: str) -> bool:
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": world.namespace}}
        try:
            world.api.send("POST", world.api.path("Pod", world.namespace, name) + "/eviction", eviction)
        except ApiError as error:
            if error.status != 404:  # it is gone
                raise
        return True

    for pod in pods:
        world.wait("a pod is evicted", partial(evicted, pod["metadata"]["name"]))


def head_deleted(world: World) -> None:
    """The head goes, and its driver with it: one restart is charged."""
    team, uid = _two(world)
    (head,) = _pods(world, "head")
    world.api.delete("Pod", world.namespace, head["metadata"]["name"])
    _kept(world, team, uid, 2, "HeadLost", charged=1)


def trainer_lost(world: World) -> None:
    """The driver gives up on its trainer's ranks, with the back-off of a restart: nobody gets the nodes meanwhile."""
    team = Team(world, cpu=ONE)
    crash = {"attempts": [1], "step": 3, "code": 7, "message": "ranks are gone"}
    team.submit("first", HOLDS, steps=8, failurePolicy={"backoffSeconds": BACKOFF_S})
    world.wait_phase("first", "Running")
    uid = str(team.workload("first")["metadata"]["uid"])
    team.submit("second")
    team.held("second", "Pending", "insufficient")
    world.script("first", step_s=0.05, crash=crash)
    _kept(world, team, uid, 2, "WorkersLost", charged=1)
    ended = next(e["at"] for e in world.driver_log("first", "end"))
    again = world.driver_log("first", "start")[1]["at"]
    assert again - ended >= BACKOFF_S


def worker_deleted(world: World) -> None:
    """KubeRay makes another worker in the same attempt."""
    team, uid = _two(world)
    (worker,) = _pods(world, "workers")
    world.api.delete("Pod", world.namespace, worker["metadata"]["name"])
    gone = worker["metadata"]["uid"]
    world.wait("another worker", lambda: [p for p in _pods(world, "workers") if p["metadata"]["uid"] != gone])
    world.wait("ready again", lambda: world.condition("first", "ClusterReady").get("status") == "True")
    _kept(world, team, uid, 1, charged=0)


def drained(world: World) -> None:
    """The node of all its pods is drained: its pods come on another one, nothing is charged."""
    team, uid = _two(world)
    (node,) = {p["spec"]["nodeName"] for role in ("head", "workers") for p in _pods(world, role)}
    world.plane.add_nodes(world.namespace, "cpu", 1, first=1)
    world.api.patch("Node", None, node, {"spec": {"unschedulable": True}})
    _evict(world, [*_pods(world, "head"), *_pods(world, "workers")])
    _kept(world, team, uid, 2, "Evicted", charged=0)


def cluster_deleted(world: World) -> None:
    """Somebody deletes the RayCluster: its Workload goes with it, so whoever waits is next. That is charged, and it queues again."""
    team, uid = _two(world)
    world.api.delete("RayCluster", world.namespace, "first-a1")
    world.wait_phase("second", "Succeeded")
    world.wait("attempt 2 of the first", lambda: ("first", 2) in team.order())
    assert team.workload("first")["metadata"]["uid"] != uid
    found = team.finish("first")
    assert ([f["reason"] for f in found["failures"]], found["restartsUsed"], found["cluster"]) == (["ClusterDeleted"], 1, "first-a2")
    assert team.order() == [("first", 1), ("second", 1), ("first", 2)]

"""Pods, containers and nodes are lost: the failure table, with real KubeRay, Job controller and node controller."""

import time
from collections.abc import Callable
from typing import Any

from tests.control_plane.harness.api import STRATEGIC, Document
from tests.control_plane.harness.manifests import SHAPE, annotations, inspection, toy
from tests.control_plane.harness.operator import Operator
from tests.control_plane.harness.together import Scenario, apart, together
from tests.control_plane.harness.world import World

SLOW = {"step_s": 0.5, "hold_at": 6}
"""Held: no run ends by itself before something happened to it."""
END_S = 900.0


def running(world: World, job: str, driver: dict[str, Any] | None = None, **spec: Any) -> None:
    """A job at step 2 or later, with a checkpoint."""
    world.apply(toy(job, world.namespace, driver or SLOW, steps=15, **spec))
    world.wait(f"{job}: step 2", lambda: world.status(job).get("training", {}).get("step", 0) >= 2, seconds=END_S)


def ends_well(world: World, job: str, reason: str, charged: int = 1) -> Document:
    """The job goes on as attempt 2 from its checkpoint and succeeds."""
    world.wait(f"{job}: attempt 2", lambda: len(world.driver_log(job, "start")) == 2, seconds=END_S)
    world.script(job, step_s=0.1)
    status = world.wait_phase(job, "Succeeded", seconds=END_S)
    assert (status["attempt"], status["restartsUsed"]) == (2, charged), job
    assert [f["reason"] for f in status.get("failures", ())] == [reason], job
    starts = world.driver_log(job, "start")
    assert [s["attempt"] for s in starts] == [1, 2], job
    assert starts[1]["step"] >= 2, job
    over = next(e["at"] for e in world.driver_log(job) if e["event"] in ("end", "killed"))
    print(f"{job}: attempt 2 trains {starts[1]['at'] - over:.1f} s after the driver of attempt 1 was gone")
    return status


def head(world: World, job: str) -> str:
    """Name of the job's head pod."""
    (found,) = [p for p in world.pods("head") if p["metadata"]["labels"]["lprl.dev/job"] == job]
    return str(found["metadata"]["name"])


def ended(code: int, reason: str, charged: bool) -> Scenario:
    """The driver ends with a code: a new attempt, or the end."""

    def scenario(world: World, job: str) -> None:
        crash = {"attempts": [1], "step": 4, "code": code, "reason": reason, "message": "look here"}
        if charged:
            running(world, job, {**SLOW, "crash": crash})
            ends_well(world, job, reason)
            return
        world.apply(toy(job, world.namespace, {**SLOW, "crash": crash}))
        assert world.wait_phase(job, "Failed", seconds=END_S)["attempt"] == 1
        failed = world.condition(job, "Failed")
        assert (failed["reason"], "look here" in failed["message"]) == (reason, True)
        world.wait_gone("RayCluster", f"{job}-a1")

    return scenario


def budget_used_up(world: World, job: str) -> None:
    crash = {"step_s": 0.1, "crash": {"attempts": [1, 2, 3], "step": 0, "code": 1}}
    world.apply(toy(job, world.namespace, crash, failurePolicy={"backoffSeconds": 0, "maxRestarts": 2}))
    status = world.wait_phase(job, "Failed", seconds=END_S)
    assert (status["attempt"], status["restartsUsed"]) == (3, 2)
    assert world.condition(job, "Failed")["reason"] == "RestartsExhausted"


def head_deleted(world: World, job: str) -> None:
    running(world, job)
    world.api.delete("Pod", world.namespace, head(world, job))
    ends_well(world, job, "HeadLost")


def ray_killed_for_memory(world: World, job: str) -> None:
    running(world, job)
    done = {"exitCode": 137, "reason": "OOMKilled"}
    states = [{"name": "ray-head", "ready": False, "state": {"terminated": done, "running": None}}]
    world.api.patch("Pod", world.namespace, head(world, job), {"status": {"containerStatuses": states}}, STRATEGIC, "/status")
    ends_well(world, job, "OutOfMemory")


def head_evicted(world: World, job: str) -> None:
    """By the eviction API, which marks the pod before it deletes it: nobody's failure."""
    running(world, job)
    name = head(world, job)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": world.namespace}}
    world.api.send("POST", world.api.path("Pod", world.namespace, name) + "/eviction", eviction)
    ends_well(world, job, "Evicted", charged=0)


def worker_deleted(world: World, job: str) -> None:
    """KubeRay makes another one and the driver deals with it: no new attempt."""
    running(world, job, {**SLOW, "hold_at": 3})
    (worker,) = [p for p in world.pods("workers") if p["metadata"]["labels"]["lprl.dev/job"] == job]
    world.api.delete("Pod", world.namespace, worker["metadata"]["name"])
    begun = time.monotonic()

    def others() -> list[Document]:
        mine = [p for p in world.pods("workers") if p["metadata"]["labels"]["lprl.dev/job"] == job]
        return [p for p in mine if p["metadata"]["uid"] != worker["metadata"]["uid"]]

    world.wait(f"{job}: another worker", others)
    world.wait(f"{job}: ready again", lambda: world.condition(job, "ClusterReady").get("status") == "True")
    print(f"{job}: another worker is ready {time.monotonic() - begun:.1f} s after the first was deleted, in the same attempt")
    world.script(job, step_s=0.1)
    assert world.wait_phase(job, "Succeeded", seconds=END_S)["attempt"] == 1


def cluster_deleted(world: World, job: str) -> None:
    running(world, job)
    world.api.delete("RayCluster", world.namespace, f"{job}-a1")
    ends_well(world, job, "ClusterDeleted")


def node_unreachable(world: World) -> None:
    """The node's pods never go; after the limit they count as gone. Its driver goes on meanwhile, and the fence ends it."""
    job = "toy"
    world.cut_off.add(job)
    cut = world.plane.add_nodes(world.namespace, "cut", 1)[0]
    sim = annotations(inspection(SHAPE), {**SLOW, "survives": True})
    sim["head"]["nodeSelector"] = {"sim.lprl.dev/kind": "cut"}
    sim["workers"] = {"nodeSelector": {"sim.lprl.dev/kind": "cpu"}}
    limits = {"backoffSeconds": 0, "unreachableNodeSeconds": 15}
    world.apply(toy(job, world.namespace, sim=sim, steps=120, failurePolicy=limits))
    world.wait("step 2", lambda: world.status(job).get("training", {}).get("step", 0) >= 2)
    began = time.monotonic()
    world.plane.cut_off(cut)
    world.plane.add_nodes(world.namespace, "cut", 1, first=1)
    world.wait("the head counts as lost", lambda: world.status(job).get("failures"), seconds=900)
    world.wait("attempt 2", lambda: world.status(job)["attempt"] == 2, seconds=900)
    took = time.monotonic() - began
    assert took >= 15
    print(f"node cut off: attempt 2 is made after {took:.1f} s with a limit of 15 s; the old driver runs on and is fenced")
    world.wait("attempt 2 runs", lambda: len(world.driver_log(job, "start")) == 2)
    fenced = world.wait("the old driver is fenced", lambda: [e for e in world.driver_log(job, "end") if e["attempt"] == 1])
    assert fenced is not None
    assert fenced[0]["code"] == 6
    world.script(job, step_s=0.0, report_s=0.5)
    status = world.wait_phase(job, "Succeeded", seconds=900)
    assert [f["reason"] for f in status["failures"]] == ["HeadLost"]
    assert cut in status["failures"][0]["message"]
    assert status["attempt"] == 2
    (stuck,) = [p for p in world.pods("head") if p["spec"]["nodeName"] == cut]
    assert "deletionTimestamp" in stuck["metadata"], "the pod of attempt 1 was not stuck"
    world.plane.bring_back(cut)


def driver_head_worker_and_cluster(world: World) -> None:
    together(
        world,
        {
            "crashed": ended(1, "DriverCrashed", charged=True),
            "trainer-lost": ended(7, "WorkersLost", charged=True),
            "users-mistake": ended(3, "UserError", charged=False),
            "volume-full": ended(5, "StorageFull", charged=False),
            "budget": budget_used_up,
            "head-deleted": head_deleted,
            "ray-killed": ray_killed_for_memory,
            "head-evicted": head_evicted,
            "worker-deleted": worker_deleted,
            "cluster-deleted": cluster_deleted,
        },
    )


def test_lost(operator: Operator, make_world: Callable[[], World]) -> None:
    apart(make_world, {"most": driver_head_worker_and_cluster, "node": node_unreachable})

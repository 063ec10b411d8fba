"""Suspension in every phase, limits of time, and the time to live."""

from tests.control_plane.harness.manifests import SHAPE, annotations, inspection, toy
from tests.control_plane.harness.operator import Operator
from tests.control_plane.harness.together import together
from tests.control_plane.harness.world import World

OFTEN = {"intervalSeconds": 1}
END_S = 900.0
RECREATED_S = 400.0
"""A Job that comes back under its name before the Job controller looked gets its pods after five minutes; the operator gives it 2 s."""
GATED = {"workers": {"schedulingGates": ["test/held"]}}


def pods_of(world: World, role: str, job: str) -> list[str]:
    """Names of running pods of an inspect Job, or held conversion pods."""
    mine = [p for p in world.pods(role) if p["status"]["phase"] == "Running" and "deletionTimestamp" not in p["metadata"]]
    return [p["metadata"]["name"] for p in mine if role != "inspect" or p["metadata"]["labels"]["lprl.dev/job"] == job]


def while_running(world: World, job: str) -> None:
    """The driver is asked first, and the next attempt goes on from where it stopped."""
    world.apply(toy(job, world.namespace, {"step_s": 0.5, "hold_at": 4}, steps=12))  # held: it must not end before it is asked
    world.wait(f"{job}: step 3", lambda: world.status(job).get("training", {}).get("step", 0) >= 3, seconds=END_S)
    world.patch(job, suspend=True)
    world.wait_phase(job, "Suspended", seconds=END_S)
    assert not world.of("RayCluster", f"lprl.dev/job={job}") + world.of("Pod", f"lprl.dev/job={job},ray.io/cluster")
    (end,) = world.driver_log(job, "end")
    assert end["code"] == 4
    status = world.status(job)
    assert status["training"]["step"] == end["step"]
    assert "activeSince" not in status
    world.patch(job, suspend=False)
    world.wait_phase(job, "Running", seconds=END_S)
    world.script(job, step_s=0.5)
    status = world.wait_phase(job, "Succeeded", seconds=END_S)
    assert (status["attempt"], status["restartsUsed"]) == (2, 0)
    starts = world.driver_log(job, "start")
    assert [(s["attempt"], s["step"]) for s in starts] == [(1, 0), (2, end["step"])]
    assert [s["step"] for s in world.driver_log(job, "step")] == list(range(1, 13))
    world.check_fence(job)


def while_inspecting(world: World, job: str) -> None:
    world.apply(toy(job, world.namespace, sim=annotations(inspection(SHAPE, "a1" * 32), inspect_hold="yes")))
    held = world.wait(f"{job}: inspect pod", lambda: pods_of(world, "inspect", job))
    world.patch(job, suspend=True)
    world.wait_phase(job, "Suspended", seconds=END_S)
    world.wait(f"{job}: no Job", lambda: not world.of("Job", f"lprl.dev/job={job}"))
    world.patch(job, suspend=False)
    # The first pod outlives its Job by as long as the garbage collector takes: releasing that one would leave the next held for ever.
    another = world.wait(f"{job}: another inspect pod", lambda: set(pods_of(world, "inspect", job)) - set(held), seconds=RECREATED_S)
    assert len(another) == 1
    world.release("inspect")
    assert world.wait_phase(job, "Succeeded", seconds=END_S)["attempt"] == 1


def both(held: list[str]) -> list[str] | None:
    """Both pods of a conversion of two shards: one that came after the release would be held for ever."""
    return held if len(held) == 2 else None


def while_converting(world: World, job: str) -> None:
    world.apply(toy(job, world.namespace, sim=annotations(inspection(SHAPE, "a2" * 32), convert_hold="yes")))
    world.wait_phase(job, "Converting", seconds=END_S)
    held = world.wait(f"{job}: conversion pods", lambda: both(_held(world)))
    world.patch(job, suspend=True)
    world.wait_phase(job, "Suspended", seconds=END_S)
    world.wait(f"{job}: conversion stopped", lambda: not _held(world))
    world.patch(job, suspend=False)
    again = world.wait(f"{job}: conversion pods again", lambda: both(_held(world)), seconds=RECREATED_S)
    assert not set(held or ()) & set(again or ())
    world.release("convert")
    assert world.wait_phase(job, "Succeeded", seconds=END_S)["attempt"] == 1


def while_provisioning(world: World, job: str) -> None:
    """The driver that waits for workers is asked too; then the cluster is given up."""
    world.apply(toy(job, world.namespace, sim={**annotations(inspection(SHAPE, "a3" * 32)), **GATED}))
    world.wait_phase(job, "Provisioning", seconds=END_S)
    world.wait(f"{job}: its head runs", lambda: world.driver_log(job, "container"), seconds=END_S)
    assert world.status(job)["phase"] == "Provisioning", "a driver that waits for workers is not Running"
    world.patch(job, suspend=True)
    world.wait_phase(job, "Suspended", seconds=END_S)
    assert not world.of("RayCluster", f"lprl.dev/job={job}")
    world.patch(job, suspend=False)
    status = world.wait_phase(job, "Provisioning", seconds=END_S)
    assert (status["attempt"], status["restartsUsed"]) == (2, 0)
    world.api.delete("LowPrecisionRLJob", world.namespace, job)


def from_the_start(world: World, job: str) -> None:
    world.apply(toy(job, world.namespace, suspend=True))
    world.wait_phase(job, "Suspended", seconds=END_S)
    assert not world.of("Job", f"lprl.dev/job={job}")
    world.patch(job, suspend=False)
    assert world.wait_phase(job, "Succeeded", seconds=END_S)["attempt"] == 1


def deaf_driver(world: World, job: str) -> None:
    """It is not waited for longer than a stall."""
    limits = {"backoffSeconds": 0, "stallSeconds": 6}
    world.apply(toy(job, world.namespace, {"step_s": 0.2, "silent": True}, failurePolicy=limits, progress=OFTEN))
    world.wait(f"{job} trains", lambda: world.driver_log(job, "silent"), seconds=END_S)
    world.patch(job, suspend=True)
    world.wait_phase(job, "Suspended", seconds=END_S)


STALL_S = 15
"""Longer than a driver that moves may have to wait for a busy machine between two reports."""


def stalled(world: World, job: str) -> None:
    """Attempt 1 hangs and goes on reporting, attempt 2 is stopped whole; each is charged, and its step said."""
    still = {"step_s": 0.2, "report_s": 0.1, "hang": {"attempts": [1], "step": 2}, "stopped": {"attempts": [2], "step": 3}}
    limits = {"backoffSeconds": 0, "stallSeconds": STALL_S, "refillSteps": 1000}
    world.apply(toy(job, world.namespace, still, failurePolicy=limits, progress=OFTEN))
    status = world.wait_phase(job, "Succeeded", seconds=END_S)
    assert (status["attempt"], status["restartsUsed"]) == (3, 2)
    assert [(f["reason"], f["message"]) for f in status["failures"]] == [
        ("Stalled", f"step 3: rewards, 1 of 4 responses, no movement for {STALL_S} s"),
        ("Stalled", f"training, step 3/4, no movement for {STALL_S} s"),
    ]
    ends = {e["attempt"]: e["at"] for e in world.driver_log(job) if e["event"] == "killed"}
    for number, event in ((1, "hangs"), (2, "stopped")):
        (began,) = [e["at"] for e in world.driver_log(job, event)]
        took = ends[number] - began
        print(f"{job}: the driver that {event} was ended after {took:.1f} s (limit {STALL_S} s)")
    world.check_fence(job)


def too_late(world: World, job: str) -> None:
    world.apply(toy(job, world.namespace, {"step_s": 0.2, "hold_at": 1}, activeDeadlineSeconds=25))
    world.wait_phase(job, "Failed", seconds=END_S)
    assert world.condition(job, "Failed")["reason"] == "DeadlineExceeded"
    world.wait(f"{job}: its cluster gone", lambda: not world.of("RayCluster", f"lprl.dev/job={job}"))


def never_ready(world: World, job: str) -> None:
    """A cluster that is not ready in time is given up, although its driver reports that it waits."""
    limits = {"backoffSeconds": 0, "maxRestarts": 1, "provisionTimeoutSeconds": 8}
    world.apply(toy(job, world.namespace, sim={**annotations(inspection(SHAPE)), **GATED}, failurePolicy=limits))
    status = world.wait_phase(job, "Failed", seconds=END_S)
    assert world.condition(job, "Failed")["reason"] == "RestartsExhausted"
    assert [f["reason"] for f in status["failures"]] == ["ProvisionTimeout", "RestartsExhausted"]


def time_to_live(world: World, job: str) -> None:
    world.apply(toy(job, world.namespace, {"step_s": 0.1}, ttlSecondsAfterFinished=1))
    world.wait_gone("LowPrecisionRLJob", job, seconds=END_S)
    world.wait(
        f"{job}: nothing left", lambda: not world.of("RayCluster", f"lprl.dev/job={job}") + world.of("ConfigMap", f"lprl.dev/job={job}")
    )


def steps_raised(world: World, job: str) -> None:
    """A running job is given more steps: the driver hears of it."""
    world.apply(toy(job, world.namespace, {"step_s": 0.5, "hold_at": 2}, steps=4))
    world.wait(f"{job}: step 2", lambda: world.status(job).get("training", {}).get("step", 0) >= 2, seconds=END_S)
    world.patch(job, algorithm={"steps": 7})
    world.wait(f"{job}: told", lambda: world.status(job)["training"]["summary"] == "2/7", seconds=END_S)
    world.script(job, step_s=0.1)
    status = world.wait_phase(job, "Succeeded", seconds=END_S)
    assert (status["attempt"], status["training"]["summary"]) == (1, "7/7")


def _held(world: World) -> list[str]:
    mine = [p for p in world.pods("convert") if "sim.lprl.dev/convert-hold" in p["metadata"].get("annotations", {})]
    return [p["metadata"]["name"] for p in mine if p["status"]["phase"] == "Running" and "deletionTimestamp" not in p["metadata"]]


def test_suspended_in_every_phase_and_limits_of_time(operator: Operator, world: World) -> None:
    together(
        world,
        {
            "running": while_running,
            "inspecting": while_inspecting,
            "converting": while_converting,
            "provisioning": while_provisioning,
            "first": from_the_start,
            "deaf": deaf_driver,
            "stalled": stalled,
            "late": too_late,
            "unready": never_ready,
            "ttl": time_to_live,
            "more-steps": steps_raised,
        },
    )

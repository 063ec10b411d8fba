"""The operator is killed (-9) in every phase, over and over, and next to a second one: nothing is made twice, every job ends well."""

import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.control_plane.harness.manifests import SHAPE, annotations, inspection, merged, toy
from tests.control_plane.harness.operator import Operator
from tests.control_plane.harness.world import World

MakeOperator = Callable[..., Operator]
LEASE_S = 15.0
RETRY_S = 2.0
BUSY_S = 20.0
"""What a busy machine adds to a fail-over."""
END_S = 900.0
HOLDS = {"inspecting": "inspect_hold", "converting": "convert_hold", "finalising": "finalise_hold"}
HELD: dict[str, Any] = {"step_s": 0.2, "hold_at": 1}
DRIVERS: dict[str, dict[str, Any]] = {
    "running": HELD,
    "restarting": {"crash": {"attempts": [1], "step": 1, "code": 1}},
    "suspending": {"step_s": 2.0, "hold_at": 1},
    "deleted": HELD,
    "expiring": HELD,
    "failing": {**HELD, "crash": {"attempts": [1], "step": 2, "code": 3}},
}
SPECS: dict[str, dict[str, Any]] = {
    "restarting": {"failurePolicy": {"backoffSeconds": 45}},
    "suspended": {"suspend": True},
    "expiring": {"ttlSecondsAfterFinished": 1},
}
PHASES = {"finalising": "Converting"} | dict.fromkeys(("suspending", "deleted", "expiring", "failing"), "Running")
NAMES = (*HOLDS, *DRIVERS, "provisioning", "suspended")


BRIEF = ("restarting", "provisioning")
"""Phases that end by themselves: their jobs are made last."""


def submit(world: World) -> None:
    """A job in each phase, held there."""
    for names in ([n for n in NAMES if n not in BRIEF], BRIEF):
        for name in names:
            held = {HOLDS[name]: "yes"} if name in HOLDS else {}
            sim = annotations(inspection(SHAPE, f"{NAMES.index(name):02x}" * 32), DRIVERS.get(name, {"step_s": 0.1}), **held)
            if name == "provisioning":
                sim = merged(sim, {"workers": {"annotations": {"sim.lprl.dev/ready-delay": "45s"}}})
            world.apply(toy(name, world.namespace, sim=sim, steps=3, **SPECS.get(name, {})))
        for name in names:
            world.wait_phase(name, PHASES.get(name, name.capitalize()), seconds=END_S)
        world.wait("finalise pod", lambda: [p for p in world.pods("finalise") if p["status"]["phase"] == "Running"])


def go_on(world: World) -> None:
    """Everything that can happen does: pods end, drivers finish or fail, workers become ready, users change their minds."""
    for role in ("inspect", "convert", "finalise"):
        world.release(role)
    for name in ("running", "expiring"):
        world.script(name, step_s=0.1)
    world.script("failing", step_s=0.1, crash={"attempts": [1], "step": 2, "code": 3})
    world.patch("suspending", suspend=True)
    world.patch("suspended", suspend=False)
    world.api.delete("LowPrecisionRLJob", world.namespace, "deleted")
    for name in ("running", "expiring", "failing"):
        world.wait(f"the driver of {name} ended", partial(world.driver_log, name, "end"))
    time.sleep(3)


def test_killed_in_every_phase(make_operator: MakeOperator, world: World) -> None:
    """Killed once while jobs are in every phase, and started again after everything went on without it."""
    operator = make_operator()
    submit(world)
    operator.kill()
    go_on(world)
    operator.start()
    back = time.monotonic()
    world.wait_phase("suspending", "Suspended", seconds=END_S)
    world.patch("suspending", suspend=False)
    world.wait("suspending: attempt 2", lambda: len(world.driver_log("suspending", "start")) == 2, seconds=END_S)
    world.script("suspending", step_s=0.1)
    world.wait_phase("failing", "Failed", seconds=END_S)
    for name in (*HOLDS, "running", "restarting", "provisioning", "suspended", "suspending"):
        status = world.wait_phase(name, "Succeeded", seconds=END_S)
        assert status["attempt"] == (2 if name in ("restarting", "suspending") else 1), name
        assert status["restartsUsed"] == (1 if name == "restarting" else 0), name
    world.wait_gone("LowPrecisionRLJob", "expiring", seconds=END_S)
    took = time.monotonic() - back
    left = [o for o in world.orphans() if o.split()[1].startswith(("deleted-", "expiring-"))]
    assert not left
    assert not world.seen.twice()
    print(f"killed (-9) with jobs in {len(NAMES)} phases: all where they belong {took:.1f} s after it was healthy again")


def test_killed_again_and_again(make_operator: MakeOperator, world: World) -> None:
    """Six lives through a rain of kills, half a second to three seconds apart."""
    operator = make_operator()
    dice = random.Random(7)
    names = [f"toy-{i}" for i in range(6)]
    for number, name in enumerate(names):  # each with a source of its own: a job that joins a conversion late has it checked anew
        sim = annotations(inspection(SHAPE, f"{number:02x}" * 32), {"step_s": 0.5}, convert_delay="1s", finalise_delay="1s")
        world.apply(toy(name, world.namespace, sim=sim, steps=6))
    kills = 0
    while kills < 8:
        time.sleep(dice.uniform(0.5, 3.0))
        operator.kill()
        operator.start(wait=False)
        kills += 1
    for name in names:
        status = world.wait_phase(name, "Succeeded", seconds=END_S)
        assert (status["attempt"], status["restartsUsed"]) == (1, 0)
    assert not world.seen.twice()


def test_two_that_both_act(make_operator: MakeOperator, world: World) -> None:
    """Without election two operators reconcile the same jobs at once: conflicts, but nothing twice."""
    for name in ("operator-1", "operator-2"):
        make_operator(name, leaderElection={"enabled": False})
    names = [f"toy-{i}" for i in range(4)]
    for name in names:
        crash = {"step_s": 0.2, "crash": {"attempts": [1], "step": 1, "code": 1}}
        world.apply(toy(name, world.namespace, crash))
    for name in names:
        status = world.wait_phase(name, "Succeeded", seconds=END_S)
        assert (status["attempt"], status["restartsUsed"]) == (2, 1)
        assert len(status["failures"]) == 1
    assert not world.seen.twice()


def test_fail_over_and_a_leader_that_wakes_up(make_operator: MakeOperator, world: World) -> None:
    """A leader that is killed, and one that sleeps past its lease and wakes up believing it still leads."""
    first = make_operator("operator-1")
    world.wait("the first leads", first.leads)
    second = make_operator("operator-2")
    assert not second.leads()
    world.apply(toy("toy", world.namespace, {"step_s": 0.5}, steps=600))
    world.wait_phase("toy", "Running")
    first.kill()
    world.patch("toy", ttlSecondsAfterFinished=3600, suspend=True)
    took = _until_leading(world, second)
    world.wait_phase("toy", "Suspended")
    assert took <= LEASE_S + 2 * RETRY_S + BUSY_S
    first.start()
    second.freeze()
    slept = _until_leading(world, first)
    world.patch("toy", suspend=False)
    world.wait("attempt 2", lambda: world.status("toy")["attempt"] == 2)
    second.thaw()
    time.sleep(3)
    assert first.leads() and not second.leads()
    world.script("toy", step_s=0.0, report_s=0.5)
    assert world.wait_phase("toy", "Succeeded")["attempt"] == 2
    world.check_fence("toy")
    begun = time.monotonic()
    first.stop()
    _until_leading(world, second)
    handed = time.monotonic() - begun
    print(f"fail-over: killed {took:.1f} s, frozen {slept:.1f} s, asked to end {handed:.1f} s (lease {LEASE_S:g} s, retry {RETRY_S:g} s)")
    assert handed < LEASE_S - RETRY_S, "a leader that is asked to end gives its lease back"


def _until_leading(world: World, operator: Operator) -> float:
    begun = time.monotonic()
    world.wait(f"{operator.name} leads", operator.leads)
    return time.monotonic() - begun

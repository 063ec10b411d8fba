"""What the operator itself suffers: an API server that is away, wall clocks that are wrong."""

import time
from collections.abc import Callable

from tests.control_plane.harness.manifests import SHAPE, annotations, inspection, merged, toy
from tests.control_plane.harness.operator import Operator
from tests.control_plane.harness.world import World

MakeOperator = Callable[..., Operator]
AWAY_S = 30.0
SKEW_S = 1500.0
END_S = 900.0
LEASE_S = 12.0
RETRY_S = 2.0
ELECTION = {"leaseDurationSeconds": int(LEASE_S), "renewDeadlineSeconds": 9, "retryPeriodSeconds": int(RETRY_S)}
"""A renewal may take nine seconds: the leader keeps its Lease on a busy machine."""
BUSY_S = 15.0
"""What a busy machine adds to a fail-over."""
REPORT_S = 16.0
"""Longer than a fail-over's first look: the new leader finds the report its predecessor has seen already."""


def test_the_api_server_is_away_for_half_a_minute(make_operator: MakeOperator, world: World) -> None:
    """Nobody can tell anything meanwhile, so nothing may be concluded from the silence: no restart is charged."""
    operator = make_operator()
    sim = {"converting": {"convert_delay": "10s"}, "inspecting": {"inspect_delay": "10s"}}
    limits = {"stallSeconds": 180}  # more than the half minute and what a busy machine takes to catch up
    for number, name in enumerate(("running", "converting", "inspecting", "provisioning")):
        notes = annotations(inspection(SHAPE, f"f{number}" * 32), {"step_s": 0.5}, **sim.get(name, {}))
        if name == "provisioning":
            notes = merged(notes, {"workers": {"annotations": {"sim.lprl.dev/ready-delay": "10s"}}})
        world.apply(toy(name, world.namespace, sim=notes, steps=10, failurePolicy={"backoffSeconds": 0, **limits}))
        world.wait_phase(name, name.capitalize())
    with world.plane.frozen("kube-apiserver", AWAY_S):
        pass
    back = time.monotonic()
    world.wait("an answer", lambda: world.status("running"))
    for name in ("running", "converting", "inspecting", "provisioning"):
        status = world.wait_phase(name, "Succeeded", seconds=END_S)
        assert (status["attempt"], status["restartsUsed"], status.get("failures", [])) == (1, 0, []), name
    took = time.monotonic() - back
    world.wait("it leads again", operator.leads)
    assert operator.healthy()
    print(f"API server away for {AWAY_S:g} s: all four jobs succeeded {took:.1f} s after it came back; attempt 1, no restart charged")


def submit(world: World) -> None:
    """Jobs with a limit of time that a wrong clock would say is over, or that it would never reach."""
    slow = {"step_s": 0.5, "report_s": REPORT_S, "hold_at": 4}
    limits = {"backoffSeconds": 0, "stallSeconds": 180, "provisionTimeoutSeconds": 600}
    world.apply(toy("running", world.namespace, slow, steps=6, activeDeadlineSeconds=1200, failurePolicy=limits))
    crash = {"crash": {"attempts": [1], "step": 1, "code": 1}}
    sim = annotations(inspection(SHAPE, "a1" * 32), crash)
    world.apply(toy("restarting", world.namespace, sim=sim, failurePolicy={**limits, "backoffSeconds": 60}))
    gated = merged(annotations(inspection(SHAPE, "a2" * 32)), {"workers": {"annotations": {"sim.lprl.dev/ready-delay": "70s"}}})
    world.apply(toy("provisioning", world.namespace, sim=gated, failurePolicy=limits))
    world.apply(toy("finished", world.namespace, {"step_s": 0.0}, steps=1, ttlSecondsAfterFinished=1200))
    for name, phase in (("running", "Running"), ("restarting", "Restarting"), ("provisioning", "Provisioning"), ("finished", "Succeeded")):
        world.wait_phase(name, phase)


def test_clocks_that_are_minutes_off(make_operator: MakeOperator, world: World) -> None:
    """A right clock, one 25 minutes ahead and one 25 minutes behind lead one after the other."""
    leader = make_operator("operator-0", leaderElection=ELECTION)
    world.wait("the right one leads", leader.leads)
    submit(world)
    taken = []
    for name, skew_s in (("operator-1", SKEW_S), ("operator-2", -SKEW_S)):
        follower = make_operator(name, skew_s=skew_s, leaderElection=ELECTION)
        stays_the_leader(leader, follower)
        leader.kill()
        begun = time.monotonic()
        world.wait(f"{name} leads", follower.leads)
        taken.append(time.monotonic() - begun)
        time.sleep(REPORT_S / 2)
        right_so_far(world)
        leader = follower
    assert max(taken) <= LEASE_S + 2 * RETRY_S + BUSY_S
    status = world.wait_phase("restarting", "Succeeded", seconds=END_S)
    assert (status["attempt"], status["restartsUsed"]) == (2, 1)
    for name in ("running", "provisioning"):
        world.script(name, step_s=0.1)
        status = world.wait_phase(name, "Succeeded", seconds=END_S)
        assert (status["attempt"], status.get("failures", [])) == (1, []), name
    assert world.status("finished")["phase"] == "Succeeded", "deleted before its time"
    after = f"took over {taken[0]:.1f} s and {taken[1]:.1f} s after a kill (lease {LEASE_S:g} s)"
    print(f"clocks {SKEW_S:g} s ahead and behind {after}; nothing timed out, nothing twice")


def stays_the_leader(leader: Operator, other: Operator) -> None:
    """A follower with another clock never takes a lease that is renewed."""
    until = time.monotonic() + LEASE_S + RETRY_S
    while time.monotonic() < until:
        assert leader.leads() and not other.leads()
        time.sleep(1)


def right_so_far(world: World) -> None:
    """Nobody took waiting for failing."""
    for name in ("running", "provisioning"):
        status = world.status(name)
        assert (status["attempt"], status.get("failures", [])) == (1, []), world.describe()

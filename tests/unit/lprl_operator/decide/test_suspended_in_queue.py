"""A job that its user suspends while a queue holds it: what never ran uses nothing up."""

import pytest
from tests.unit.lprl_operator.decide.steps import advance, condition, edit, look, noted, status
from tests.unit.lprl_operator.decide.test_simulation import live, settle
from tests.unit.lprl_operator.decide.test_simulation import look as look_once

from lprl_api.names import ExitCode
from lprl_operator.decide.actions import Delete


@pytest.fixture
def waiting(queued, lib):
    """Factory: a world whose job waits for its first admission, its phases noted from then on."""

    def make(**spec):
        world = queued(**spec)
        world.full = True
        while condition(advance(world, lib, "Provisioning"), "ClusterReady")["reason"] != "Queued":
            world.tick()
            look(world, lib)
        return world

    return make


def phases(world):
    """Note every phase that is published from now on."""
    found, publish = [], world.publish

    def note(key, status, resource_version, events):
        found.append(status["phase"])
        publish(key, status, resource_version, events)

    world.publish = note
    return found


def suspend(world, lib):
    edit(world, suspend=True)
    return advance(world, lib, "Suspended")


def resume(world, lib):
    world.full = False
    edit(world, suspend=False)
    return advance(world, lib, "Running")


def test_suspended_while_queued_and_resumed_is_the_same_attempt(waiting, lib):
    world = waiting()
    suspend(world, lib)
    assert not world.clusters
    resume(world, lib)
    assert (status(world)["attempt"], status(world)["cluster"], status(world)["restartsUsed"]) == (1, "toy-a1", 0)
    assert not status(world)["failures"]
    advance(world, lib, "Succeeded")


def test_what_never_ran_is_not_told_as_running(waiting, lib):
    world = waiting()
    told = phases(world)
    edit(world, suspend=True)
    for _ in range(20):
        look(world, lib)
        world.tick(1)
    assert told[-1] == "Suspended" and "Running" not in told, told


def test_suspended_again_and_again_uses_nothing_up(waiting, lib):
    world = waiting()
    for _ in range(3):
        suspend(world, lib)
        edit(world, suspend=False)
        advance(world, lib, "Provisioning")
        while condition(world, "ClusterReady")["reason"] != "Queued":
            world.tick()
            look(world, lib)
    resume(world, lib)
    assert (status(world)["attempt"], status(world)["attemptUnused"]) == (1, False)


def test_let_go_while_it_is_deleted_uses_the_number_up(waiting, lib):
    """The queue admits it between the look and the deletion: a driver of that number may have begun."""
    world = waiting()
    apply, done = world.apply, []

    def admitted(actions):
        if any(isinstance(a, Delete) and a.ref.kind == "RayCluster" for a in actions) and not done:
            done.append(True)
            world.change_cluster("toy-a1", suspended=False, told_to_suspend=False)
        apply(actions)

    world.apply = admitted
    edit(world, suspend=True)
    for _ in range(20):
        look_once(world, lib)
        world.tick()
    assert status(world)["phase"] == "Suspended"
    world.full = False
    resume(world, lib)
    assert done and (status(world)["attempt"], status(world)["restartsUsed"]) == (2, 0)


def test_what_is_released_is_deleted_only_as_it_was_seen(waiting, lib):
    world = waiting()
    done, version = noted(world), world.clusters["toy-a1"].resource_version
    suspend(world, lib)
    assert [(type(a).__name__, a.resource_version) for a in done] == [("Delete", version)]


def test_an_attempt_that_ran_and_was_evicted_keeps_its_number_to_itself(queued, lib):
    """Evicted, queued as attempt 2, of which nothing ran either: resumed it is attempt 2, of rights and progress of its own cluster."""
    world = advance(queued(), lib, "Running")
    world.full = True
    world.evict(world.clusters["toy-a1"])
    for _ in range(20):
        look(world, lib)
        world.tick()
    assert (status(world)["attempt"], condition(world, "ClusterReady")["reason"]) == (2, "Queued")
    suspend(world, lib)
    resume(world, lib)
    assert (status(world)["attempt"], status(world)["cluster"], status(world)["restartsUsed"]) == (2, "toy-a2", 0)
    assert [f["reason"] for f in status(world)["failures"]] == ["Evicted"]


def test_a_restart_after_it_is_the_next_attempt(waiting, lib):
    world = waiting()
    suspend(world, lib)
    resume(world, lib)
    world.exit_driver(world.head(), ExitCode.CRASH)
    advance(world, lib, "Running")
    assert (status(world)["attempt"], status(world)["restartsUsed"]) == (2, 1)


@pytest.mark.parametrize("seed", range(12))
def test_suspended_and_resumed_in_chaos_under_a_queue(queued, lib, seed):
    """The world checks: nothing of two attempts at once, and pods of an attempt in one RayCluster only."""
    world = queued(seed, True, failurePolicy={"maxRestarts": 1000, "backoffSeconds": 1, "stallSeconds": 60})
    for number in range(400):
        look_once(world, lib)
        if world.random.random() < 0.05:
            world.full = not world.full
        if world.random.random() < 0.04:
            edit(world, suspend=not world.document["spec"].get("suspend", False))
        if number % 25 == 0:
            settle(world, lib)
        world.tick()
    world.full = False
    edit(world, suspend=False)
    assert live(world, lib)[-1] == "Succeeded"

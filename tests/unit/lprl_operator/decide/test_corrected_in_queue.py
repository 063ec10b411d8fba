"""A job that is edited while a queue holds it: its RayCluster is made anew, and what never ran uses no number up."""

import pytest
from tests.unit.lprl_operator.decide.steps import advance, condition, edit, look, noted, status
from tests.unit.lprl_operator.decide.test_simulation import live, settle
from tests.unit.lprl_operator.decide.test_simulation import look as look_once
from tests.unit.lprl_operator.decide.test_suspended_in_queue import waiting

from lprl_operator.decide.actions import Delete

__all__ = ["waiting"]


def image(number):
    return {"podTemplate": {"image": f"lprl.test/workload:{number}"}}


def correct(world, lib, number=2):
    """Edit what waits, and wait until it is queued again."""
    before = world.clusters["toy-a1"].uid
    edit(world, **image(number % 3))
    for _ in range(40):
        look(world, lib)
        world.tick()
        found = list(world.clusters.values())
        if found and found[0].uid != before and condition(world, "ClusterReady")["reason"] == "Queued":
            return
    raise AssertionError(status(world))


def test_corrected_while_queued_is_the_same_attempt(waiting, lib):
    world = waiting()
    for number in (2, 3, 4):
        correct(world, lib, number)
    world.full = False
    advance(world, lib, "Running")
    found = status(world)
    assert (found["attempt"], found["cluster"], found["restartsUsed"], found["failures"]) == (1, "toy-a1", 0, [])
    assert [e.reason for e in world.events].count("SpecChanged") == 3
    advance(world, lib, "Succeeded")


def test_what_is_corrected_is_deleted_only_as_it_was_seen(waiting, lib):
    world = waiting()
    done, version = noted(world), world.clusters["toy-a1"].resource_version
    correct(world, lib)
    assert [a.resource_version for a in done if isinstance(a, Delete)] == [version]


def test_let_go_while_it_is_corrected_uses_the_number_up(waiting, lib):
    """The queue admits it between the look and the deletion: a driver of that number may have begun."""
    world = waiting()
    apply, done = world.apply, []

    def admitted(actions):
        if any(isinstance(a, Delete) and a.ref.kind == "RayCluster" for a in actions) and not done:
            done.append(True)
            world.change_cluster("toy-a1", suspended=False, told_to_suspend=False)
        apply(actions)

    world.apply = admitted
    edit(world, **image(2))
    for _ in range(20):
        look_once(world, lib)
        world.tick()
    world.full = False
    advance(world, lib, "Running")
    assert done and (status(world)["attempt"], status(world)["restartsUsed"]) == (2, 0)


def test_one_that_was_let_go_and_waits_for_nodes_takes_the_next_number(waiting, lib):
    world = waiting()
    world.full = False
    run = world._run_cluster
    world._run_cluster = lambda cluster: run(cluster) if cluster.deleting or cluster.attempt > 1 else None
    world.change_cluster("toy-a1", suspended=False, told_to_suspend=False)
    look(world, lib)
    edit(world, **image(2))
    advance(world, lib, "Running", 80)
    assert (status(world)["attempt"], status(world)["restartsUsed"]) == (2, 0)


def test_evicted_and_corrected_before_it_is_back_keeps_the_number_it_waited_with(queued, lib):
    world = advance(queued(), lib, "Running")
    world.full = True
    world.evict(world.clusters["toy-a1"])
    for _ in range(20):
        look(world, lib)
        world.tick()
    assert (status(world)["attempt"], condition(world, "ClusterReady")["reason"]) == (2, "Queued")
    correct(world, lib)
    world.full = False
    advance(world, lib, "Running")
    assert (status(world)["attempt"], status(world)["cluster"], status(world)["restartsUsed"]) == (2, "toy-a2", 0)
    assert [f["reason"] for f in status(world)["failures"]] == ["Evicted"]


@pytest.mark.parametrize("seed", range(8))
def test_edited_and_suspended_in_chaos_under_a_queue(queued, lib, seed):
    """The world checks: nothing of two attempts at once, and pods of an attempt in one RayCluster only."""
    world = queued(seed, True, failurePolicy={"maxRestarts": 1000, "backoffSeconds": 1, "stallSeconds": 60})
    for number in range(250):
        look_once(world, lib)
        if world.random.random() < 0.05:
            world.full = not world.full
        if world.random.random() < 0.04:
            edit(world, **image(number % 3))
        if world.random.random() < 0.02:
            edit(world, suspend=not world.document["spec"].get("suspend", False))
        if number % 25 == 0:
            settle(world, lib)
        world.tick()
    world.full = False
    edit(world, suspend=False)
    assert live(world, lib)[-1] == "Succeeded"

"""One RayCluster for a job's life: who suspends it and lets go, what is written when, and when it takes a new one."""

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.lprl_operator.decide.steps import advance, condition, edit, look, noted, status
from tests.unit.lprl_operator.decide.test_simulation import live

from lprl_api.names import ExitCode
from lprl_operator.controller import reconcile
from lprl_operator.decide.actions import Begin

CRASH = ExitCode.CRASH


def test_a_restart_keeps_the_cluster_and_writes_two_times(running, lib):
    world = running()
    done, uid = noted(world), world.clusters["toy-a1"].uid
    world.exit_driver(world.head(), CRASH)
    advance(world, lib, "Running")
    assert [type(a).__name__ for a in done] == ["Hold", "Begin"]
    assert (status(world)["attempt"], status(world)["restartsUsed"], status(world)["cluster"]) == (2, 1, "toy-a1")
    assert [(c.name, c.uid, c.attempt, c.held) for c in world.clusters.values()] == [("toy-a1", uid, 2, False)]
    assert {p.attempt for p in world.pods} == {2}


def test_under_a_queue_a_restart_is_one_write_and_the_operator_never_lets_go(queued, lib):
    world = advance(queued(), lib, "Running")
    done, uid = noted(world), world.clusters["toy-a1"].uid
    world.exit_driver(world.head(), CRASH)
    advance(world, lib, "Running")
    assert [(type(a).__name__, a.suspend) for a in done] == [("Begin", True)]
    assert (world.clusters["toy-a1"].uid, status(world)["attempt"], status(world)["restartsUsed"]) == (uid, 2, 1)
    assert {p.attempt for p in world.pods} == {2}


def test_under_a_queue_the_back_off_is_waited_out_before_the_pods_go(queued, lib):
    world = advance(queued(), lib, "Running")
    world.exit_driver(world.head(), CRASH)
    look(world, lib)
    first = world.now
    assert condition(world, "ClusterReady")["reason"] == "BackingOff"
    assert not world.clusters["toy-a1"].suspended, "a queue would make pods of the attempt that is over"
    advance(world, lib, "Running")
    assert (world.now - first).total_seconds() >= 60
    assert status(world)["attempt"] == 2


def test_a_driver_that_may_still_run_is_not_left_alone_for_a_back_off(queued, lib):
    world = advance(queued(failurePolicy={"stallSeconds": 300}), lib, "Running")
    world.now += timedelta(seconds=301)
    look(world, lib)
    assert status(world)["failures"][0]["reason"] == "Stalled"
    cluster = world.clusters["toy-a1"]
    assert (cluster.suspended, cluster.attempt, cluster.template_attempt) == (True, 2, 2)


def test_an_eviction_leaves_the_queue_its_workload_and_puts_the_number_back(queued, lib):
    world = advance(queued(), lib, "Running")
    world.exit_driver(world.head(), CRASH)
    advance(world, lib, "Running")
    done, uid = noted(world), world.clusters["toy-a1"].uid
    world.evict(world.clusters["toy-a1"])
    assert world.clusters["toy-a1"].template_attempt == 1
    look(world, lib)
    assert [(type(a).__name__, a.suspend) for a in done] == [("Begin", None)]
    assert (world.clusters["toy-a1"].template_attempt, status(world)["attempt"], status(world)["restartsUsed"]) == (3, 3, 1)
    assert condition(world, "ClusterReady")["reason"] == "WaitingForPodsGone"
    advance(world, lib, "Running")
    assert (world.clusters["toy-a1"].uid, status(world)["failures"][-1]["reason"]) == (uid, "Evicted")


def test_evicted_and_let_go_while_nobody_looked_is_no_lost_head(queued, lib):
    world = advance(queued(), lib, "Running")
    world.exit_driver(world.head(), CRASH)
    advance(world, lib, "Running")
    world.evict(world.clusters["toy-a1"])
    for _ in range(30):
        world.tick()
    assert {p.attempt for p in world.pods} == {1}, "made from what the queue put back"
    advance(world, lib, "Running")
    assert (status(world)["attempt"], status(world)["restartsUsed"], status(world)["failures"][-1]["reason"]) == (3, 1, "Evicted")
    assert {p.attempt for p in world.pods} == {3}


def test_a_second_head_under_the_same_number_is_not_taken_for_the_first(queued, lib):
    """Evicted and let go while nobody looked, in the attempt that the cluster was made for: its templates carry the very number."""
    world = advance(queued(), lib, "Running")
    first = world.head().uid
    world.evict(world.clusters["toy-a1"])
    while world.head() is None or world.head().uid == first:
        world.tick()
    assert {p.attempt for p in world.pods} == {1}
    advance(world, lib, "Running")
    assert (status(world)["attempt"], status(world)["restartsUsed"], status(world)["failures"][-1]["reason"]) == (2, 0, "Evicted")


def test_an_evicted_job_that_is_not_admitted_waits_without_end_and_without_charge(queued, lib):
    world = advance(queued(failurePolicy={"provisionTimeoutSeconds": 100}), lib, "Running")
    world.evict(world.clusters["toy-a1"])
    suspend = world._suspend_cluster

    def stays(cluster, mine):
        suspend(replace(cluster, told_to_suspend=False), mine)
        world.change_cluster(cluster.name, suspended=True, told_to_suspend=True)

    world._suspend_cluster = stays
    for _ in range(50):
        look(world, lib)
        world.tick(30)
    assert (condition(world, "ClusterReady")["reason"], status(world)["attempt"]) == ("Queued", 2)
    assert (status(world)["restartsUsed"], [f["reason"] for f in status(world)["failures"]]) == (0, ["Evicted"])


def test_what_kuberay_says_is_empty_is_queued_whatever_an_older_list_of_pods_says(queued, lib):
    world = advance(queued(), lib, "Running")
    world.evict(world.clusters["toy-a1"])
    look(world, lib)
    assert condition(world, "ClusterReady")["reason"] == "WaitingForPodsGone"
    assert reconcile(world.cached_document(), world, world.now, lib.SETTINGS) <= 5
    world.change_cluster("toy-a1", emptied=True, provisioned=False)
    look(world, lib)
    assert condition(world, "ClusterReady")["reason"] == "Queued"


def missed(world):
    """KubeRay did not see that the cluster was suspended before its queue let go."""
    world.change_cluster("toy-a1", suspended=False, told_to_suspend=False, emptied=False)


@pytest.mark.parametrize("left", ["pods", "no pods"])
def test_a_suspension_that_kuberay_did_not_see_is_asked_for_again(queued, lib, left):
    world = advance(queued(failurePolicy={"backoffSeconds": 0}), lib, "Running")
    world.exit_driver(world.head(), CRASH)
    look(world, lib)
    done = noted(world)
    missed(world)
    if left == "no pods":
        world.pods = []
    look(world, lib)
    assert [(type(a).__name__, a.suspend) for a in done] == [("Begin", True)]
    advance(world, lib, "Running")
    assert (status(world)["attempt"], status(world)["restartsUsed"], len(status(world)["failures"])) == (2, 1, 1)
    assert {p.attempt for p in world.pods} == {2}


@pytest.mark.parametrize("under", ["a queue", "nobody"])
def test_a_number_in_status_that_was_written_nowhere_else_is_written_later(queued, running, lib, under):
    world = (
        advance(queued(failurePolicy={"backoffSeconds": 0}), lib, "Running")
        if under == "a queue"
        else running(failurePolicy={"backoffSeconds": 0})
    )
    world.exit_driver(world.head(), CRASH)
    apply, lost = world.apply, []

    def dies(actions):
        if any(isinstance(a, Begin) for a in actions) and not lost:
            lost.append(True)
            raise lib.Crash
        apply(actions)

    world.apply = dies
    while not lost:
        try:
            look(world, lib)
        except lib.Crash:
            break
        world.tick()
    assert (status(world)["attempt"], world.clusters["toy-a1"].attempt) == (2, 1)
    advance(world, lib, "Running")
    assert (status(world)["attempt"], status(world)["restartsUsed"], world.clusters["toy-a1"].attempt) == (2, 1, 2)


def test_other_pods_need_another_cluster_and_it_is_said(running, lib):
    world = running(failurePolicy={"backoffSeconds": 0})
    done = noted(world)
    edit(world, podTemplate={"image": "lprl.test/other:2"})
    world.exit_driver(world.head(), CRASH)
    look(world, lib)
    assert any("needs other pods than toy-a1 has" in e.message for e in world.events)
    advance(world, lib, "Running")
    assert [type(a).__name__ for a in done] == ["Delete", "Create"]
    assert status(world)["cluster"] == "toy-a2"


def test_a_cluster_of_an_earlier_version_is_finished_and_followed_by_a_new_one(running, lib):
    world = running(failurePolicy={"backoffSeconds": 0})
    world.change_cluster("toy-a1", pods="")
    done = noted(world)
    look(world, lib)
    assert status(world)["phase"] == "Running" and not done
    world.exit_driver(world.head(), CRASH)
    advance(world, lib, "Running")
    assert [type(a).__name__ for a in done] == ["Delete", "Create"]
    assert (status(world)["attempt"], status(world)["cluster"]) == (2, "toy-a2")


@pytest.mark.parametrize("under", ["a queue", "nobody"])
def test_a_pod_on_a_dead_node_costs_the_cluster_after_the_limit(queued, running, lib, under):
    policy = {"backoffSeconds": 1}
    world = advance(queued(failurePolicy=policy), lib, "Running") if under == "a queue" else running(failurePolicy=policy)
    worker = next(p for p in world.pods if p.role == "worker")
    world._collect_pods = lambda: setattr(world, "pods", [p for p in world.pods if not p.deleting or p.name == worker.name])
    world.change_pod(worker.name, unreachable_since=world.now, node="n7")
    world.exit_driver(world.head(), CRASH)
    for _ in range(50):
        look(world, lib)
        world.tick()
    assert world.created_attempts in ([1], [1, 2]) and not [p for p in world.pods if p.attempt == 2]
    world.tick(200)
    advance(world, lib, "Running", 100)
    assert (len(world.clusters), status(world)["cluster"] == "toy-a1", status(world)["restartsUsed"]) == (1, False, 1)


def test_what_somebody_else_suspends_is_not_let_go(running, lib):
    world = running()
    world.evict(world.clusters["toy-a1"])
    done = noted(world)
    look(world, lib)
    assert [(type(a).__name__, a.suspend) for a in done] == [("Begin", None)]


@pytest.mark.parametrize("seed", range(20))
def test_life_in_chaos_under_a_queue(queued, lib, seed):
    policy = {"maxRestarts": 3, "backoffSeconds": 5, "stallSeconds": 120, "refillSteps": 5}
    world = queued(seed, True, failurePolicy=policy)
    phases = live(world, lib)
    assert world.created_attempts == sorted(set(world.created_attempts)), "an attempt begins once"
    if phases[-1] == "Succeeded":
        assert world.completed
    else:
        assert world.document["status"]["conditions"][-1]["reason"] == "RestartsExhausted"

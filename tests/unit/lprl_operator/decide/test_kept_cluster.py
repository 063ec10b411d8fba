"""What a RayCluster that is kept from attempt to attempt must not make weaker than a new one for each was."""

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.lprl_operator.decide.steps import advance, condition, edit, look, noted, status

from lprl_api.names import ExitCode
from lprl_operator.controller import reconcile
from lprl_operator.decide.actions import ObjectRef
from lprl_operator.decide.observed import Refusal
from lprl_operator.resources.render import Wanted

CRASH = ExitCode.CRASH


def test_what_another_hand_lets_go_of_between_attempts_is_held_again(running, lib):
    world = running()
    world.exit_driver(world.head(), CRASH)
    look(world, lib)
    done = noted(world)
    world.change_cluster("toy-a1", told_to_suspend=False, suspended=False)
    look(world, lib)
    assert [type(a).__name__ for a in done] == ["Hold"], "else the driver of an attempt that is over would run on"
    advance(world, lib, "Running")
    assert (status(world)["attempt"], status(world)["restartsUsed"], len(status(world)["failures"])) == (2, 1, 1)
    assert {p.attempt for p in world.pods} == {2}


def test_an_image_is_waited_for_from_when_the_attempt_began_not_from_when_its_cluster_was_made(running, lib):
    world = running(failurePolicy={"backoffSeconds": 0})
    world.exit_driver(world.head(), CRASH)
    look(world, lib)
    world.now += timedelta(hours=1)
    while not (world.pods and {p.attempt for p in world.pods} == {2}):
        look(world, lib)
        world.tick()
    look(world, lib)
    world._run_cluster = lambda cluster: None
    head = world.head()
    world.change_pod(head.name, phase="Pending", driver=None, ray=None, image_pull="ErrImagePull: a bad minute")
    world.change_cluster("toy-a1", head_ready=False, provisioned=False)
    look(world, lib)
    assert (condition(world, "ClusterReady")["reason"], condition(world, "Failed")["status"]) == ("ImagePullFailed", "False")
    world.now += timedelta(seconds=601)
    look(world, lib)
    assert condition(world, "Failed")["reason"] == "ImagePullFailed"


@pytest.mark.parametrize(("under", "how"), [("a queue", ["Begin"]), ("nobody", ["Hold", "Begin"])])
def test_what_an_earlier_cluster_left_on_a_dead_node_does_not_cost_the_next_one(queued, running, lib, under, how):
    policy = {"backoffSeconds": 1, "maxRestarts": 3}
    world = advance(queued(failurePolicy=policy), lib, "Running") if under == "a queue" else running(failurePolicy=policy)
    worker = next(p for p in world.pods if p.role == "worker")
    collect = world._collect_pods

    def stays():
        left = next(p for p in world.pods if p.name == worker.name)
        world.pods.remove(left)
        collect()
        world.pods.append(replace(left, deleting=True))

    world._collect_pods = stays
    world.change_pod(worker.name, unreachable_since=world.now, node="n7")
    world.exit_driver(world.head(), CRASH)
    for _ in range(100):
        look(world, lib)
        world.tick()
        if status(world)["phase"] == "Running" and status(world)["cluster"] != "toy-a1":
            break
    name, uid = status(world)["cluster"], world.clusters[status(world)["cluster"]].uid
    done, attempt = noted(world), status(world)["attempt"]
    world.exit_driver(next(p for p in world.pods if p.role == "head" and p.cluster_uid == uid), CRASH)
    look(world, lib)
    advance(world, lib, "Running")
    assert [type(a).__name__ for a in done] == how
    assert (status(world)["cluster"], world.clusters[name].uid, status(world)["attempt"]) == (name, uid, attempt + 1)
    assert any(p.name == worker.name and p.alive for p in world.pods), "still listed"


def test_a_patch_that_is_refused_is_told(running, lib):
    world = running()
    world.exit_driver(world.head(), CRASH)
    world.refuse = Refusal(ObjectRef("ray.io/v1", "RayCluster", "rl", "toy-a1"), 'cannot patch resource "rayclusters"', False)
    world._hand_over = lambda action: None
    look(world, lib)
    assert 'trying again: cannot patch resource "rayclusters"' in condition(world, "ClusterReady")["message"]


@pytest.mark.parametrize("code", [ExitCode.TERMINATED, ExitCode.TRAINER_LOST, ExitCode.SUSPENDED])
def test_a_driver_that_ended_because_its_queue_took_the_pods_is_nobodys_failure(queued, lib, code):
    """The operator was away, or slow: the driver's end is there before it saw that the cluster is suspended."""
    world = advance(queued(), lib, "Running")
    world.evict(world.clusters["toy-a1"])
    world.change_pod(world.head().name, deleting=True)
    world.exit_driver(next(p for p in world.pods if p.role == "head"), code)
    look(world, lib)
    assert (status(world)["restartsUsed"], [f["reason"] for f in status(world)["failures"]]) == (0, ["Evicted"])


def without_pods(running, lib):
    """A world whose attempt 2 was let go, and whose KubeRay makes nothing."""
    world = running(failurePolicy={"backoffSeconds": 0, "provisionTimeoutSeconds": 100})
    world.exit_driver(world.head(), CRASH)
    run, world._run_cluster = world._run_cluster, lambda cluster: run(cluster) if cluster.suspended else None
    while not (status(world)["attempt"] == 2 and not world.clusters["toy-a1"].suspended):
        look(world, lib)
        world.tick(1)
    look(world, lib)
    return world


def test_kuberay_is_asked_to_look_at_a_kept_cluster_that_gets_no_head(running, lib):
    world = without_pods(running, lib)
    done = noted(world)
    for _ in range(25):
        look(world, lib)
        world.tick(1)
    assert [type(a).__name__ for a in done] == ["Nudge"] * 2, "every ten seconds"
    assert world.clusters["toy-a1"].nudged == done[-1].at
    assert reconcile(world.cached_document(), world, world.now, lib.SETTINGS) <= 10


def test_a_kept_cluster_that_never_gets_a_head_is_out_of_time(running, lib):
    world = without_pods(running, lib)
    for _ in range(12):
        look(world, lib)
        world.tick(10)
    assert [f["reason"] for f in status(world)["failures"]] == ["DriverCrashed", "ProvisionTimeout"]


def test_a_job_that_waits_between_attempts_is_not_rendered_at_each_look(running, lib, monkeypatch):
    world = running(failurePolicy={"backoffSeconds": 600})
    world.exit_driver(world.head(), CRASH)
    look(world, lib)
    rendered, documents = [], Wanted.attempt_documents
    monkeypatch.setattr(Wanted, "attempt_documents", lambda *args, **kwargs: rendered.append(args) or documents(*args, **kwargs))
    for _ in range(10):
        world.tick()
        look(world, lib)
    assert condition(world, "ClusterReady")["reason"] == "BackingOff"
    assert rendered == []
    edit(world, podTemplate={"image": "lprl.test/other:2"})
    look(world, lib)
    assert len(rendered) >= 1, "another spec has other pods"
    assert all(c.deleting for c in world.clusters.values())

"""A pod without its image or container: how long it is waited for, counted from when, and what a run that has begun does."""

from datetime import timedelta

import pytest
from tests.unit.lprl_operator.decide.steps import advance, condition, look, status

from lprl_api.names import ExitCode

PULLS = ["ErrImagePull: one bad second", "CreateContainerError: context deadline exceeded"]


def break_pod(world, role, why):
    """One pod's container is waited for, and its cluster is not ready."""
    world._run_cluster = lambda cluster: None
    pod = next(p for p in world.pods if p.role == role)
    cluster = next(iter(world.clusters.values()))
    ready = {"head_ready": False} if role == "head" else {"ready_workers": cluster.wanted_workers - 1}
    world.change_cluster(cluster.name, **ready)
    world.change_pod(pod.name, phase="Pending", driver=None, ray=None, ready=False, image_pull=why)
    return pod.name


def later(world, lib, seconds, every=30):
    """Time passes, and the operator looks meanwhile."""
    for _ in range(seconds // every):
        world.now += timedelta(seconds=every)
        look(world, lib)


@pytest.fixture
def provisioning(make_world, make_manifest, lib):
    """A world whose cluster has all its pods and whose driver does not report yet."""
    world = make_world(make_manifest(failurePolicy={"backoffSeconds": 0}))
    world._run_driver = lambda cluster, head: None
    for _ in range(60):
        look(world, lib)
        if len(world.pods) == 3:
            return world
        world.tick()
    pytest.fail("no pods")


@pytest.mark.parametrize("why", PULLS)
def test_a_bad_second_after_an_hour_in_a_queue_fails_nothing(queued, lib, why):
    world = queued()
    world.full = True
    while not world.clusters:
        look(world, lib)
        world.tick()
    later(world, lib, 3600)
    assert condition(world, "ClusterReady")["reason"] == "Queued"
    world.full = False
    while not world.pods:
        world.tick(5)
        look(world, lib)
    run = world._run_cluster
    head = break_pod(world, "head", why)
    later(world, lib, 570)
    assert (condition(world, "ClusterReady")["reason"], condition(world, "Failed")["status"]) == ("ImagePullFailed", "False")
    world.pods = [p for p in world.pods if p.name != head]  # made anew, and the registry is well
    world._run_cluster = run
    advance(world, lib, "Running")
    assert "podTrouble" not in status(world)


@pytest.mark.parametrize("blind", [False, True], ids=["all-is-told", "workers-are-not-watched"])
@pytest.mark.parametrize("role", ["head", "worker"])
def test_ten_minutes_of_it_before_the_run_begins_are_the_end(provisioning, lib, role, blind):
    world = provisioning
    break_pod(world, role, PULLS[0])
    look(world, lib)  # pods were listed
    world.blind = blind
    began = status(world)["podTrouble"]["since"]
    later(world, lib, 570)
    assert (condition(world, "Failed")["status"], status(world)["podTrouble"]["since"]) == ("False", began)
    later(world, lib, 60)
    assert (condition(world, "Failed")["status"], condition(world, "Failed")["reason"]) == ("True", "ImagePullFailed")


def test_troubles_of_one_pod_after_another_are_not_added_up(provisioning, lib):
    world = provisioning
    first = break_pod(world, "worker", PULLS[0])
    later(world, lib, 540)
    second = next(p for p in world.pods if p.role == "worker" and p.name != first)
    world.change_pod(first, phase="Running", ready=True, image_pull="")
    world.change_pod(second.name, phase="Pending", ready=False, image_pull=PULLS[1])
    later(world, lib, 570)
    assert condition(world, "Failed")["status"] == "False"
    later(world, lib, 60)
    assert condition(world, "Failed")["reason"] == "ImagePullFailed"


def test_a_run_that_began_waits_for_a_worker_without_its_image_as_for_any_lost_one(running, lib):
    """Its driver goes on with the others, and ends by itself when no room comes: that costs one restart, not the job."""
    world = running()
    world.now += timedelta(hours=3)
    world.report(1, 4)
    look(world, lib)
    break_pod(world, "worker", PULLS[0])
    later(world, lib, 900)
    assert condition(world, "Failed")["status"] == "False"
    told = condition(world, "ClusterReady")
    assert (told["reason"], "one bad second" in told["message"]) == ("ImagePullFailed", True)
    world.exit_driver(world.head(), ExitCode.TRAINER_LOST)
    look(world, lib)
    assert (status(world)["phase"], status(world)["restartsUsed"]) == ("Restarting", 1)

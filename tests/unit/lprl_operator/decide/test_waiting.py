"""What a job waits for: workers, queues, images, KubeRay, refusals; each as a scenario on the in-memory world."""

from datetime import timedelta

import pytest
from tests.unit.lprl_operator.decide.steps import advance, condition, look, status

from lprl_api.names import ExitCode
from lprl_operator.controller import reconcile
from lprl_operator.decide.actions import Create
from lprl_operator.decide.observed import Exit, ObjectRef, Refusal


def test_provision_timeout_and_message(make_world, make_manifest, lib):
    world = make_world(make_manifest(failurePolicy={"provisionTimeoutSeconds": 100, "backoffSeconds": 1}))
    advance(world, lib, "Provisioning")
    world._run_cluster = lambda cluster: None
    world._start_pod(world.clusters["toy-a1"], "head", 0)
    world._start_pod(world.clusters["toy-a1"], "worker", 1)
    world.change_cluster("toy-a1", head_ready=True, ready_workers=1)
    stuck = world.pods[-1]
    world.change_pod(stuck.name, phase="Pending", ready=False, ray=None, scheduling="0/40 nodes are available")
    look(world, lib)
    assert status(world)["message"] == "1/2 workers; 1 unschedulable: 0/40 nodes are available"
    assert status(world)["nodes"]["summary"] == "1/2"
    world.now += timedelta(seconds=101)
    look(world, lib)
    assert status(world)["failures"][0]["reason"] == "ProvisionTimeout"


@pytest.fixture
def driver_waits(make_world, make_manifest, lib):
    """A world whose head is up and whose driver says that it waits; one of two workers is there."""
    world = make_world(make_manifest(failurePolicy={"provisionTimeoutSeconds": 600, "stallSeconds": 300, "backoffSeconds": 1}))
    advance(world, lib, "Provisioning")
    world._run_cluster = lambda cluster: None
    for number, role in enumerate(("head", "worker")):
        world._start_pod(world.clusters["toy-a1"], role, number)
    world.change_cluster("toy-a1", head_ready=True, ready_workers=1)
    return world


def wait_on(world, lib, seconds):
    """The driver reports for so long that it waits."""
    for _ in range(0, seconds, 30):
        world.now += timedelta(seconds=30)
        world.report(1, 0, phase="starting", message="waits for workers: 1/2 lprl_trainer")
        look(world, lib)


def test_a_driver_that_waits_for_its_workers_is_not_running(driver_waits, lib):
    wait_on(driver_waits, lib, 60)
    assert (status(driver_waits)["phase"], status(driver_waits)["nodes"]["summary"]) == ("Provisioning", "1/2")
    assert "waits for workers: 1/2 lprl_trainer" in condition(driver_waits, "Progressing")["message"]


def test_provision_timeout_also_while_the_driver_waits(driver_waits, lib):
    wait_on(driver_waits, lib, 570)
    assert status(driver_waits)["phase"] == "Provisioning"
    wait_on(driver_waits, lib, 60)
    assert status(driver_waits)["failures"][0]["reason"] == "ProvisionTimeout"


def test_a_driver_that_waits_though_all_workers_are_there_is_stalled(driver_waits, lib):
    wait_on(driver_waits, lib, 60)
    driver_waits.change_cluster("toy-a1", ready_workers=2)
    wait_on(driver_waits, lib, 270)
    assert not status(driver_waits).get("failures")
    wait_on(driver_waits, lib, 60)
    assert status(driver_waits)["failures"][0]["reason"] == "Stalled"


def test_steps_of_earlier_attempts_are_not_forgotten_while_the_next_one_loads(running, lib):
    world = running(failurePolicy={"backoffSeconds": 1})
    reached = status(world)["training"]["step"]
    assert reached > 0
    world.exit_driver(world.head(), 1)
    advance(world, lib, "Provisioning")
    world._run_driver = lambda cluster, head: world.report(2, 0, phase="loading")
    advance(world, lib, "Running")
    assert status(world)["training"]["summary"] == f"{reached}/40"


def test_waiting_in_a_queue_is_no_provisioning(make_world, make_manifest, lib):
    world = make_world(make_manifest(failurePolicy={"provisionTimeoutSeconds": 100}))
    advance(world, lib, "Provisioning")
    world._run_cluster = lambda cluster: None
    world.change_cluster("toy-a1", suspended=True)
    for _ in range(30):
        world.now += timedelta(seconds=30)
        look(world, lib)
    assert condition(world, "ClusterReady")["reason"] == "Queued"
    assert status(world)["attempt"] == 1
    world.change_cluster("toy-a1", queue="Pending: insufficient quota for cpu in flavor any")
    look(world, lib)
    assert status(world)["message"] == "toy-a1 waits for admission by its queue: Pending: insufficient quota for cpu in flavor any"


def test_what_a_queue_says_is_asked_for_soon_and_then_seldom(make_world, make_manifest, lib):
    world = make_world(make_manifest())
    advance(world, lib, "Provisioning")
    world._run_cluster = lambda cluster: None
    world.change_cluster("toy-a1", suspended=True)
    look(world, lib)
    assert reconcile(world.cached_document(), world, world.now, lib.SETTINGS) <= 5
    world.change_cluster("toy-a1", queue="Pending: no quota")
    look(world, lib)
    assert reconcile(world.cached_document(), world, world.now, lib.SETTINGS) == 30
    world.change_cluster("toy-a1", queue="")
    world.now += timedelta(seconds=60)
    look(world, lib)
    assert reconcile(world.cached_document(), world, world.now, lib.SETTINGS) == 30, "no queue that says anything"


def test_an_eviction_is_told_in_the_queues_words(running, lib):
    world = running()
    world.change_cluster("toy-a1", suspended=True, queue="Preempted: to accommodate a workload")
    look(world, lib)
    assert status(world)["failures"][0]["message"] == "toy-a1 was suspended by its queue: Preempted: to accommodate a workload"
    assert any("Preempted: to accommodate" in e.message for e in world.events)


def test_a_cluster_held_after_it_was_provisioned_is_not_waited_for(driver_waits, lib):
    world = driver_waits
    world.config_maps["toy-a1-progress"].pop("progress.json", None)
    world.change_cluster("toy-a1", suspended=True, provisioned=True)
    reconcile(world.cached_document(), world, world.now, lib.SETTINGS)
    assert condition(world, "ClusterReady")["reason"] == "Evicted"
    assert (status(world)["phase"], status(world)["restartsUsed"]) == ("Restarting", 0)


def test_image_that_is_not_there(make_world, make_manifest, lib):
    world = make_world(make_manifest())
    advance(world, lib, "Provisioning")
    world._run_cluster = lambda cluster: None
    world._start_pod(world.clusters["toy-a1"], "head", 0)
    world.change_pod(world.pods[0].name, phase="Pending", driver=None, ray=None, image_pull="ImagePullBackOff: no such image")
    look(world, lib)
    assert condition(world, "ClusterReady")["reason"] == "ImagePullFailed"
    world.now += timedelta(seconds=601)
    look(world, lib)
    assert condition(world, "Failed")["reason"] == "ImagePullFailed"


def test_kuberay_missing_waits_and_goes_on(make_world, make_manifest, lib):
    world = make_world(make_manifest())
    world.missing = frozenset({"RayCluster"})
    for _ in range(40):
        look(world, lib)
        world.tick()
    assert condition(world, "ClusterReady")["reason"] == "KubeRayMissing"
    assert status(world)["attempt"] == 0
    world.missing = frozenset()
    advance(world, lib, "Succeeded")


@pytest.mark.parametrize(("permanent", "phase"), [(True, "Failed"), (False, "Provisioning")], ids=["wrong-object", "quota"])
def test_raycluster_refused_by_the_api_server(make_world, make_manifest, lib, permanent, phase):
    world = make_world(make_manifest())
    ref = ObjectRef("ray.io/v1", "RayCluster", "rl", "toy-a1")
    world.refuse = Refusal(ref, "exceeded quota: gpus", permanent)
    for _ in range(40):
        look(world, lib)
        world.tick()
    assert status(world)["phase"] == phase
    assert "exceeded quota" in status(world)["message"]
    assert condition(world, "ClusterReady")["reason"] == "ClusterRefused"
    if not permanent:
        world.refuse = None
        advance(world, lib, "Succeeded")


def test_a_refused_cluster_is_told_of_in_a_crowd_too(make_world, make_manifest, lib):
    world = make_world(make_manifest())
    apply = world.apply

    def refused(actions):
        if any(isinstance(a, Create) and a.document["kind"] == "RayCluster" for a in actions):
            world.refuse = Refusal(ObjectRef("ray.io/v1", "RayCluster", "rl", "toy-a1"), "exceeded quota: gpus", False)
        apply(actions)

    world.apply = refused
    for _ in range(40):
        reconcile(world.cached_document(), world, world.now, lib.SETTINGS, True)
        world.tick()
    assert "exceeded quota" in status(world)["message"]


def test_raycluster_refused_by_kuberay(make_world, make_manifest, lib):
    world = make_world(make_manifest())
    advance(world, lib, "Provisioning")
    world.change_cluster("toy-a1", refused="rayVersion is wrong")
    look(world, lib)
    assert condition(world, "Failed")["reason"] == "ClusterRefused"


JOB_ENDS = [
    pytest.param(
        "-inspect", Exit(0, ExitCode.USER_ERROR, message='{"reason":"UserError","message":"no config.json"}'), "UserError", "Inspected"
    ),
    pytest.param("-inspect", Exit(0, 1), "InspectionFailed", "Inspected"),
    pytest.param("lprl-convert", Exit(1, ExitCode.STORAGE_FULL), "StorageFull", "Converted"),
    pytest.param("lprl-convert", Exit(1, 137, "OOMKilled"), "OutOfMemory", "Converted"),
    pytest.param("lprl-finalise", Exit(0, 1), "ConversionFailed", "Converted"),
]


@pytest.mark.parametrize(("which", "end", "reason", "kind"), JOB_ENDS)
def test_jobs_that_fail(make_world, make_manifest, lib, which, end, reason, kind):
    world = make_world(make_manifest())
    for _ in range(60):
        look(world, lib)
        name = next((n for n in world.jobs if which in n), None)
        if name is not None:
            break
        world.tick()
    world.change_job(name, finished="Failed", reason="PodFailurePolicy", exits=(end,))
    look(world, lib)
    assert status(world)["phase"] == "Failed"
    assert condition(world, "Failed")["reason"] == reason
    assert condition(world, kind)["status"] == "False"


def test_inspection_that_cannot_be_read(make_world, make_manifest, lib):
    world = make_world(make_manifest())
    look(world, lib)
    world.change_job("toy-inspect", finished="Complete", exits=(Exit(0, 0, "Completed", "hello"),))
    look(world, lib)
    assert condition(world, "Failed")["reason"] == "InspectionFailed"

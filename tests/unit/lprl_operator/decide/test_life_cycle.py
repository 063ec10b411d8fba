"""Every transition and every row of the failure table, each as one step of a world that is otherwise calm."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.lprl_operator.decide.steps import advance, condition, edit, look, status

from lprl_api.names import ExitCode
from lprl_operator.controller import reconcile
from lprl_operator.decide.actions import Create, ref_of
from lprl_operator.decide.observed import ContainerState, Exit, ObjectRef, Refusal

DRIVER_ENDS = [
    pytest.param(0, "", "", "Succeeded", "Succeeded", 0, id="finished"),
    pytest.param(ExitCode.USER_ERROR, "", "", "Failed", "UserError", 0, id="user-error"),
    pytest.param(ExitCode.STORAGE_FULL, "", "", "Failed", "StorageFull", 0, id="storage-full"),
    pytest.param(ExitCode.SUSPENDED, "", "", "Restarting", "WaitingForPodsGone", 0, id="stopped-though-nobody-asked-any-more"),
    pytest.param(ExitCode.FENCED, "", "", "Restarting", "WaitingForPodsGone", 1, id="fenced"),
    pytest.param(ExitCode.TRAINER_LOST, "", "", "Restarting", "WaitingForPodsGone", 1, id="trainer-lost"),
    pytest.param(ExitCode.CRASH, "", "", "Restarting", "WaitingForPodsGone", 1, id="crash"),
    pytest.param(137, "OOMKilled", "", "Restarting", "WaitingForPodsGone", 1, id="out-of-memory"),
    pytest.param(143, "Error", "PreemptionByScheduler", "Restarting", "WaitingForPodsGone", 0, id="preempted"),
]


@pytest.mark.parametrize(("code", "reason", "disruption", "phase", "why", "charged"), DRIVER_ENDS)
def test_driver_ends(running, lib, code, reason, disruption, phase, why, charged):
    world = running()
    head = world.head()
    world.change_pod(head.name, disruption=disruption)
    world.exit_driver(world.head(), code, json.dumps({"reason": "X", "message": "the cause"}), reason)
    look(world, lib)
    assert status(world)["phase"] == phase
    assert status(world)["restartsUsed"] == charged
    if phase == "Restarting":
        assert condition(world, "ClusterReady")["reason"] == why
        assert len(status(world)["failures"]) == 1, "a new attempt has a history, charged or not"
    else:
        decisive = condition(world, "Complete" if phase == "Succeeded" else "Failed")
        assert (decisive["status"], decisive["reason"]) == ("True", why)
        assert "the cause" in decisive["message"]
    assert all(c.deleting for c in world.clusters.values()), "the cluster is released"


def test_a_restart_waits_for_pods_then_for_the_backoff_and_doubles_it(running, lib):
    world = running()
    world.exit_driver(world.head(), 1)
    look(world, lib)
    first = world.now
    advance(world, lib, "Running", 40)
    assert world.created_attempts == [1, 2]
    assert (world.now - first).total_seconds() >= 60
    assert status(world)["attempt"] == 2
    assert not [m for m in world.config_maps if m == "toy-a1-progress"], "what attempt 1 left is removed"
    world.steps[0] = 3
    world.exit_driver(world.head(), 1)
    look(world, lib)
    not_before = status(world)["restartNotBefore"]
    assert not_before == (world.now + timedelta(seconds=120)).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_budget_is_spent_without_progress_and_refilled_by_it(running, lib):
    world = running(failurePolicy={"maxRestarts": 1, "refillSteps": 10, "backoffSeconds": 1})
    world.exit_driver(world.head(), 1)
    advance(world, lib, "Running", 40)
    world.steps[0] = 20
    world.tick()
    look(world, lib)
    world.exit_driver(world.head(), 1)
    look(world, lib)
    assert (status(world)["phase"], status(world)["restartsUsed"]) == ("Restarting", 1), "20 steps refilled the budget"
    world.steps[0] = 20
    advance(world, lib, "Running", 40)
    world.exit_driver(world.head(), 1)
    look(world, lib)
    assert status(world)["phase"] == "Failed"
    assert condition(world, "Failed")["reason"] == "RestartsExhausted"
    assert [f["reason"] for f in status(world)["failures"]] == ["DriverCrashed", "DriverCrashed", "RestartsExhausted"]


def test_a_fenced_driver_is_followed_by_a_number_above_the_fence(running, lib):
    world = running(failurePolicy={"backoffSeconds": 1})
    message = {"reason": "Fenced", "message": "another attempt owns this folder", "ownerAttempt": 7}
    world.exit_driver(world.head(), ExitCode.FENCED, json.dumps(message))
    advance(world, lib, "Running", 40)
    assert world.created_attempts == [1, 8]


def lost_head(world):
    world.pods = [p for p in world.pods if p.role != "head"]
    world.change_cluster("toy-a1", head_ready=False, head_reason="HeadPodNotFound")


def ray_ended(world):
    world.change_pod(world.head().name, ray=ContainerState("terminated", "Error", "", 1))


def ray_out_of_memory(world):
    world.change_pod(world.head().name, ray=ContainerState("terminated", "OOMKilled", "", 137))


def head_evicted(world):
    world.change_pod(world.head().name, phase="Failed", disruption="EvictionByEvictionAPI", driver=None, ray=None)


def queue_eviction(world):
    world.change_cluster("toy-a1", suspended=True)


def cluster_deleted(world):
    world.change_cluster("toy-a1", deleting=True)


def cluster_gone(world):
    del world.clusters["toy-a1"]


def node_dead(world):
    world.change_pod(world.head().name, unreachable_since=world.now - timedelta(seconds=601))


LOSSES = [
    pytest.param(lost_head, "HeadLost", 1, id="head-gone"),
    pytest.param(ray_ended, "HeadLost", 1, id="ray-ended"),
    pytest.param(ray_out_of_memory, "OutOfMemory", 1, id="ray-out-of-memory"),
    pytest.param(head_evicted, "Evicted", 0, id="head-evicted"),
    pytest.param(queue_eviction, "Evicted", 0, id="queue-eviction"),
    pytest.param(cluster_deleted, "ClusterDeleted", 1, id="cluster-being-deleted"),
    pytest.param(cluster_gone, "ClusterDeleted", 1, id="cluster-gone"),
    pytest.param(node_dead, "HeadLost", 1, id="node-unreachable-too-long"),
]


@pytest.mark.parametrize(("happens", "reason", "charged"), LOSSES)
def test_losses_end_the_attempt(running, lib, happens, reason, charged):
    world = running()
    happens(world)
    reconcile(world.cached_document(), world, world.now, lib.SETTINGS)
    assert condition(world, "Progressing")["message"].startswith(reason)
    assert status(world)["restartsUsed"] == charged
    assert status(world)["phase"] == "Restarting"


def test_short_unreachability_is_waited_out(running, lib):
    world = running()
    world.change_pod(world.head().name, unreachable_since=world.now - timedelta(seconds=100))
    look(world, lib)
    assert status(world)["phase"] == "Running"


def test_pods_on_a_dead_node_hold_the_next_attempt_until_the_limit(running, lib):
    world = running(failurePolicy={"backoffSeconds": 1})
    worker = next(p for p in world.pods if p.role == "worker")
    world.change_pod(worker.name, unreachable_since=world.now, node="n7")
    world.exit_driver(world.head(), 1)
    look(world, lib)
    world.clusters.clear()
    world.pods = [p for p in world.pods if p.name == worker.name]
    look(world, lib)
    ready = condition(world, "ClusterReady")
    assert ready["reason"] == "NodeUnreachable" and "n7" in ready["message"]
    world.now += timedelta(seconds=599)
    look(world, lib)
    assert world.created_attempts == [1]
    world.now += timedelta(seconds=2)
    look(world, lib)
    assert world.created_attempts == [1, 2]


def test_stall_by_our_own_clock(running, lib):
    world = running(failurePolicy={"stallSeconds": 300})
    world.now += timedelta(seconds=299)
    look(world, lib)
    assert status(world)["phase"] == "Running"
    world.report(1, 3)
    look(world, lib)
    world.now += timedelta(seconds=299)
    look(world, lib)
    assert status(world)["phase"] == "Running"
    world.now += timedelta(seconds=2)
    look(world, lib)
    assert condition(world, "Progressing")["reason"] in ("Restarting", "BackingOff")
    assert status(world)["failures"][0]["reason"] == "Stalled"


def test_the_drivers_last_words_count_when_its_report_is_late_or_gone(running, lib):
    world = running()
    last = {"attempt": 1, "sequence": 999, "phase": "finished", "step": 40, "steps": 40, "reward": 0.875}
    world.config_maps.pop("toy-a1-progress")
    world.exit_driver(world.head(), 0, json.dumps({"reason": "Succeeded", "message": "finished 40 steps", "progress": last}))
    look(world, lib)
    training = status(world)["training"]
    assert (status(world)["phase"], training["summary"], training["reward"]) == ("Succeeded", "40/40", "0.875")


def test_a_stale_report_takes_nothing_back(running, lib):
    world = running()
    world.report(1, 30)
    look(world, lib)
    late = dict(world.config_maps["toy-a1-progress"])
    world.report(1, 39)
    look(world, lib)
    world.config_maps["toy-a1-progress"] = late
    look(world, lib)
    assert status(world)["training"]["step"] == 39
    world.exit_driver(world.head(), 0)
    look(world, lib)
    assert (status(world)["phase"], status(world)["training"]["step"]) == ("Succeeded", 39)


def test_a_head_that_is_gone_is_judged_by_how_it_was_last_seen(running, lib):
    world = running()
    head, cluster = world.head(), world.clusters["toy-a1"]
    world.departed[cluster.uid] = replace(head, disruption="EvictionByEvictionAPI")
    lost_head(world)
    look(world, lib)
    assert status(world)["phase"] == "Restarting"
    assert (status(world)["restartsUsed"], [f["reason"] for f in status(world)["failures"]]) == (0, ["Evicted"])


def test_progress_of_another_attempt_is_ignored(running, lib):
    world = running()
    before = dict(status(world))
    world.config_maps["toy-a1-progress"]["progress.json"] = json.dumps(
        {"attempt": 9, "sequence": 99, "phase": "training", "step": 39, "steps": 40}
    )
    look(world, lib)
    same = ("training", "progressSequence", "progressTime", "phase", "attempt")
    assert {k: status(world)[k] for k in same} == {k: before[k] for k in same}, "neither numbers nor the stall clock move"


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


def test_suspend_is_graceful_and_resume_is_free(running, lib):
    world = running()
    edit(world, suspend=True)
    look(world, lib)
    assert json.loads(world.config_maps["toy-a1-progress"]["control.json"])["suspend"] is True
    assert condition(world, "Suspended")["reason"] == "Suspending"
    assert status(world)["phase"] == "Running"
    advance(world, lib, "Suspended")
    assert not world.clusters and not [p for p in world.pods if p.alive]
    spent = status(world)["activeSeconds"]
    world.now += timedelta(hours=5)
    look(world, lib)
    assert status(world)["activeSeconds"] == spent
    edit(world, suspend=False)
    advance(world, lib, "Succeeded")
    assert world.created_attempts == [1, 2]
    assert status(world)["restartsUsed"] == 0 and not status(world)["failures"]


def test_a_conversion_that_all_who_want_it_let_go_is_not_published(make_world, make_manifest, lib):
    """Two jobs share it and both are suspended while it is verified: the first gives up its part, the second stops it."""
    world = make_world(make_manifest())
    advance(world, lib, "Converting")
    while not any(name.startswith("lprl-finalise") for name in world.jobs):
        world.tick()
        look(world, lib)
    final = next(n for n in world.jobs if n.startswith("lprl-finalise"))
    world.change_job(final, finished="", completed=frozenset())
    convert = next(n for n in world.jobs if n.startswith("lprl-convert"))
    world.change_job(convert, owner_uids=frozenset({"uid-1", "uid-2"}))
    edit(world, suspend=True)
    look(world, lib)
    assert final in world.jobs and world.jobs[convert].owner_uids == {"uid-2"}
    world.change_job(convert, owner_uids=frozenset({"uid-1"}))
    look(world, lib)
    assert final not in world.jobs and world.jobs[convert].finished == "Complete"


def test_a_disruption_budget_comes_and_goes_with_its_cluster(make_world, make_manifest, lib):
    """One without pods is an alert in many places, and one nobody deletes stays until the job goes."""
    settings, seen = replace(lib.SETTINGS, pod_disruption_budget=True), []
    world = make_world(make_manifest(failurePolicy={"backoffSeconds": 0}))
    apply = world.apply

    def note(actions):
        for action in actions:
            ref = ref_of(action.document) if isinstance(action, Create) else getattr(action, "ref", None)
            if ref is not None and ref.kind in ("PodDisruptionBudget", "RayCluster"):
                seen.append((type(action).__name__, ref.kind))
        apply(actions)

    world.apply = note
    for _ in range(200):
        reconcile(world.cached_document(), world, world.now, settings)
        world.tick()
    assert status(world)["phase"] == "Succeeded"
    both = [("Create", "PodDisruptionBudget"), ("Create", "RayCluster"), ("DeleteOwned", "PodDisruptionBudget"), ("Delete", "RayCluster")]
    assert list(dict.fromkeys(seen)) == both


def test_suspend_does_not_wait_for_a_driver_that_does_not_answer(running, lib):
    world = running(failurePolicy={"stallSeconds": 100})
    world._run_driver = lambda cluster, head: None
    edit(world, suspend=True)
    look(world, lib)
    assert not any(c.deleting for c in world.clusters.values())
    world.now += timedelta(seconds=101)
    look(world, lib)
    assert all(c.deleting for c in world.clusters.values())


def test_suspended_from_birth_creates_nothing(make_world, make_manifest, lib):
    world = make_world(make_manifest(suspend=True))
    look(world, lib)
    assert status(world)["phase"] == "Suspended" and not world.jobs and not world.config_maps
    edit(world, suspend=False)
    advance(world, lib, "Succeeded")


def test_a_driver_that_finishes_while_it_is_asked_to_stop_has_finished(running, lib):
    world = running()
    edit(world, suspend=True)
    look(world, lib)
    world.exit_driver(world.head(), 0)
    look(world, lib)
    assert status(world)["phase"] == "Succeeded"


def test_deadline_counts_active_time_only(make_world, make_manifest, lib):
    world = make_world(make_manifest(activeDeadlineSeconds=300))
    advance(world, lib, "Running")
    used = (world.now - lib.START).total_seconds()
    edit(world, suspend=True)
    advance(world, lib, "Suspended")
    world.now += timedelta(hours=1)
    look(world, lib)
    assert status(world)["phase"] == "Suspended"
    edit(world, suspend=False)
    look(world, lib)
    world.now += timedelta(seconds=301 - used)
    look(world, lib)
    assert condition(world, "Failed")["reason"] == "DeadlineExceeded"


def test_deadline_does_not_beat_a_driver_that_finished(running, lib):
    world = running(activeDeadlineSeconds=10000)
    world.exit_driver(world.head(), 0)
    world.now += timedelta(hours=4)
    look(world, lib)
    assert status(world)["phase"] == "Succeeded"


def test_time_to_live(running, lib):
    world = running(ttlSecondsAfterFinished=100)
    world.exit_driver(world.head(), 0)
    look(world, lib)
    world.now += timedelta(seconds=99)
    look(world, lib)
    assert world.document is not None
    again = reconcile(world.cached_document(), world, world.now, lib.SETTINGS)
    assert 0 < again <= 1
    world.now += timedelta(seconds=2)
    look(world, lib)
    assert world.document is None


def test_steps_and_stability_reach_a_running_driver(running, lib):
    world = running()
    edit(world, algorithm={**world.document["spec"]["algorithm"], "steps": 50}, stability={"action": "hold"})
    look(world, lib)
    control = json.loads(world.config_maps["toy-a1-progress"]["control.json"])
    assert control["steps"] == 50 and control["stability"]["action"] == "hold"
    advance(world, lib, "Succeeded")
    assert status(world)["training"]["summary"] == "50/50"


def test_immutable_parts_after_the_start(running, lib):
    world = running()
    edit(world, precision={"training": "bf16", "rollout": "bf16"})
    look(world, lib)
    assert condition(world, "Validated")["reason"] == "InvalidSpec"
    assert status(world)["phase"] == "Failed"


def test_invalid_spec_can_be_corrected_before_the_start(make_world, make_manifest, lib):
    document = make_manifest(topology={"accelerator": "cpu", "nodes": 2, "trainer": {"tensor": 3}})
    world = make_world(document)
    look(world, lib)
    assert status(world)["phase"] == "Failed" and "trainer.tensor" in status(world)["message"]
    assert not world.jobs and "startTime" not in status(world)
    edit(world, topology={"accelerator": "cpu", "nodes": 2})
    advance(world, lib, "Succeeded")


def test_spec_that_does_not_parse(make_world, make_manifest, lib):
    world = make_world(make_manifest(algorithm={"steps": "many"}))
    look(world, lib)
    assert condition(world, "Validated")["reason"] == "InvalidSpec" and "spec.algorithm.steps" in status(world)["message"]


def test_a_running_job_survives_a_spec_that_does_not_parse(running, lib):
    world = running()
    edit(world, algorithm={"steps": "many"})
    look(world, lib)
    assert status(world)["phase"] == "Running" and condition(world, "Validated")["status"] == "False"


def test_children_of_a_deleted_job_of_the_same_name_are_waited_out(running, make_manifest, lib):
    world = running()
    world.document = make_manifest(uid="uid-2")
    for _ in range(3):
        look(world, lib)
        assert status(world)["attempt"] == 0
        world.tick(1)
    for _ in range(60):
        look(world, lib)
        world.tick()
        cluster = world.clusters.get("toy-a1")
        if cluster is not None and cluster.owner_uids == {"uid-2"}:
            break
    else:
        pytest.fail(f"never got its own cluster: {status(world)['phase']}: {status(world)['message']} {world.clusters}")
    assert world.created_attempts == [1, 1]


def test_stability_report_becomes_a_condition(running, lib):
    world = running()
    report = {"state": "drifting", "metric": "k3", "value": 0.02, "baseline": 0.001, "limit": 0.005, "sinceStep": 2}
    world.report(1, 6, stability=report)
    look(world, lib)
    found = condition(world, "TrainingStable")
    assert (found["status"], found["reason"]) == ("False", "MismatchDrift")
    assert found["message"] == "k3=0.02, baseline 0.001, limit 0.005, since step 2"
    assert [e.type for e in world.events if e.reason == "MismatchDrift"] == ["Warning"]


def test_needs_no_conversion(make_world, make_manifest, lib):
    world = make_world(make_manifest(precision={"training": "bf16", "rollout": "bf16"}))
    advance(world, lib, "Succeeded")
    assert condition(world, "Converted")["reason"] == "ConversionNotNeeded"
    assert not [j for j in world.jobs if j.startswith("lprl-convert")]


def _shared(world):
    return [j for n, j in world.jobs.items() if n.startswith("lprl-convert")]


def test_a_conversion_in_progress_is_joined_and_left_to_its_other_owner(make_world, make_manifest, lib):
    world = make_world(make_manifest())
    advance(world, lib, "Converting")
    first = world.document
    world.document = make_manifest(name="twin", uid="uid-2")
    advance(world, lib, "Converting")
    assert [j.owner_uids for j in _shared(world)] == [{"uid-1", "uid-2"}]
    edit(world, suspend=True)
    look(world, lib)
    assert [j.owner_uids for j in _shared(world)] == [{"uid-1"}], "suspended: the other owner still wants it"
    world.document = first
    edit(world, suspend=True)
    look(world, lib)
    assert _shared(world) == [], "nobody wants it"


def test_a_failed_conversion_of_others_is_made_anew(make_world, make_manifest, lib):
    world = make_world(make_manifest())
    advance(world, lib, "Converting")
    old = _shared(world)[0]
    world.change_job(old.name, finished="Failed", exits=(Exit(0, 5),))
    look(world, lib)
    assert status(world)["phase"] == "Failed"
    world.jobs[old.name] = replace(world.jobs.get(old.name, old), finished="Failed")
    world.document = make_manifest(name="next", uid="uid-2")
    advance(world, lib, "Converting")
    for _ in range(3):
        look(world, lib)
    assert _shared(world)[0].uid != old.uid and _shared(world)[0].owner_uids == {"uid-2"}
    advance(world, lib, "Succeeded")

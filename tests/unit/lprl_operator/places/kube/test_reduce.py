"""API documents to observed states, on documents as KubeRay and the Job controller write them."""

from typing import Any

import pytest

from lprl_operator.decide.observed import Key
from lprl_operator.places.kube import reduce, reduce_clusters
from lprl_operator.places.kube.owners import owning_jobs

META = {"name": "x", "namespace": "ns", "uid": "u", "resourceVersion": "5", "creationTimestamp": "2026-01-01T00:00:00Z"}


def labelled(**labels: str) -> dict[str, Any]:
    return {**META, "labels": {k.replace("__", "/"): v for k, v in labels.items()}}


ATTEMPT = {**META, "labels": {"lprl.dev/job": "toy", "lprl.dev/attempt": "2", "ray.io/node-type": "head"}}


@pytest.mark.parametrize(
    ("text", "want"),
    [("", set()), ("0", {0}), ("0-2", {0, 1, 2}), ("1,3-5,7", {1, 3, 4, 5, 7})],
)
def test_completed_indexes(text: str, want: set[int]) -> None:
    assert reduce.indexes(text) == want


def test_a_failure_target_is_no_end() -> None:
    conditions = [{"type": "FailureTarget", "status": "True", "reason": "PodFailurePolicy"}]
    job = reduce.job_state({"metadata": META, "status": {"conditions": conditions}})
    assert job.finished == ""


def test_a_finished_one_pod_job_completed_index_zero() -> None:
    status = {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True", "reason": "CompletionsReached"}]}
    job = reduce.job_state({"metadata": META, "spec": {}, "status": status})
    assert (job.finished, job.reason, job.completed) == ("Complete", "CompletionsReached", {0})


def pod(index: int, created: str, exit_code: int | None, message: str = "", **more: Any) -> dict[str, Any]:
    owners = [{"kind": "Job", "name": "x", "uid": "u", "controller": True}]
    annotations = {"batch.kubernetes.io/job-completion-index": str(index)}
    meta = {**META, "name": f"p{index}-{created}", "creationTimestamp": created, "ownerReferences": owners, "annotations": annotations}
    state = {"terminated": {"exitCode": exit_code, "reason": "Error" if exit_code else "Completed", "message": message}}
    phase = "Running" if exit_code is None else "Failed" if exit_code else "Succeeded"
    statuses = [{"name": "work", "state": {"running": {}} if exit_code is None else state}]
    return {"metadata": meta, "status": {"phase": phase, "containerStatuses": statuses, **more}}


def test_the_newest_end_of_each_index_counts() -> None:
    job = reduce.job_state({"metadata": META})
    pods = [pod(0, "2026-01-01T00:00:02Z", 0, "good"), pod(0, "2026-01-01T00:00:01Z", 1, "bad"), pod(1, "2026-01-01T00:00:03Z", None)]
    found = reduce.with_pods(job, [reduce.job_pod(p) for p in pods])
    assert [(e.index, e.exit_code, e.message) for e in found.exits] == [(0, 0, "good")]


def test_pods_of_a_deleted_job_of_the_same_name_do_not_count() -> None:
    other = pod(0, "2026-01-01T00:00:02Z", 3, "old")
    other["metadata"]["ownerReferences"][0]["uid"] = "before"
    assert reduce.with_pods(reduce.job_state({"metadata": META}), [reduce.job_pod(other)]).exits == ()


def test_a_failed_init_container_is_the_exit() -> None:
    document = pod(0, "2026-01-01T00:00:02Z", 0)
    document["status"] |= {
        "phase": "Failed",
        "initContainerStatuses": [{"name": "reference", "state": {"terminated": {"exitCode": 3, "message": "no such repository"}}}],
        "containerStatuses": [{"name": "inspect", "state": {"waiting": {"reason": "PodInitializing"}}}],
    }
    end = reduce.job_pod(document).exit
    assert end is not None and (end.exit_code, end.message) == (3, "no such repository")


def test_a_pod_evicted_before_any_container_ended_has_an_exit() -> None:
    document = {"metadata": META, "status": {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}}
    end = reduce.job_pod(document).exit
    assert end is not None and (end.exit_code, end.reason) == (1, "Evicted")


WAITING = [
    pytest.param("ErrImagePull", "image_pull", id="image"),
    pytest.param("CreateContainerConfigError", "stuck", id="secret-missing"),
]


@pytest.mark.parametrize(("reason", "field"), WAITING)
def test_why_a_job_pod_does_not_start(reason: str, field: str) -> None:
    statuses = [{"name": "work", "state": {"waiting": {"reason": reason, "message": "why"}}}]
    found = reduce.job_pod({"metadata": META, "status": {"phase": "Pending", "containerStatuses": statuses}})
    assert getattr(found, field) == f"{reason}: why"


def test_head_pod_whose_driver_ended_while_ray_runs() -> None:
    statuses = [
        {"name": "ray-head", "restartCount": 0, "state": {"running": {}}},
        {"name": "driver", "restartCount": 0, "state": {"terminated": {"exitCode": 4, "reason": "Error", "message": "{}"}}},
    ]
    status = {"phase": "Running", "containerStatuses": statuses, "conditions": [{"type": "Ready", "status": "False"}]}
    found = reduce.pod_state({"metadata": ATTEMPT, "spec": {"nodeName": "n"}, "status": status})
    assert found is not None and found.driver is not None and found.ray is not None
    assert (found.attempt, found.role, found.driver.exit_code, found.ray.state, found.ready) == (2, "head", 4, "running", False)


def test_objects_without_an_attempt_are_not_ours() -> None:
    assert reduce.pod_state({"metadata": META}) is None
    assert reduce_clusters.cluster_state({"metadata": labelled(lprl_dev="x")}) is None
    assert reduce.progress_map({"metadata": {**META, "labels": {"lprl.dev/attempt": "no number"}}}) is None


def test_raycluster_counts_and_sticky_states() -> None:
    conditions = [
        {"type": "HeadPodReady", "status": "False", "reason": "HeadPodNotFound"},
        {"type": "RayClusterProvisioned", "status": "True"},
        {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreateWorkerPod", "message": "exceeded quota"},
    ]
    groups = [{"replicas": 3, "numOfHosts": 2}, {"replicas": 1}]
    document = {
        "metadata": ATTEMPT,
        "spec": {"workerGroupSpecs": groups},
        "status": {"state": "ready", "readyWorkerReplicas": 6, "conditions": conditions},
    }
    found = reduce_clusters.cluster_state(document)
    assert found is not None
    assert (found.wanted_workers, found.ready_workers, found.head_ready, found.head_reason) == (7, 6, False, "HeadPodNotFound")
    assert (found.provisioned, found.replica_failure, found.suspended) == (True, "exceeded quota", False)


@pytest.mark.parametrize("condition", ["RayClusterSuspending", "RayClusterSuspended"])
def test_suspension_is_seen_in_spec_and_conditions(condition: str) -> None:
    by_condition = reduce_clusters.cluster_state({"metadata": ATTEMPT, "status": {"conditions": [{"type": condition, "status": "True"}]}})
    by_spec = reduce_clusters.cluster_state({"metadata": ATTEMPT, "spec": {"suspend": True}})
    assert by_condition is not None and by_condition.suspended
    assert by_spec is not None and by_spec.suspended


def test_a_huge_progress_report_is_none() -> None:
    owners = [{"uid": "job", "controller": True}]
    document = {"metadata": {**ATTEMPT, "ownerReferences": owners}, "data": {"progress.json": "x" * 70_000, "control.json": "{}"}}
    found = reduce.progress_map(document)
    assert found is not None and (found.progress, found.control, found.owner_uid) == (None, "{}", "job")


def test_jobs_an_object_concerns() -> None:
    owners = [{"kind": "LowPrecisionRLJob", "name": "a", "uid": "1"}, {"kind": "Deployment", "name": "b", "uid": "2"}]
    found = owning_jobs({"metadata": {**META, "labels": {"lprl.dev/job": "c"}, "ownerReferences": owners}})
    assert found == {Key("ns", "a"), Key("ns", "c")}


JOB_OWNER = {"kind": "LowPrecisionRLJob", "name": "a", "uid": "1"}
OWNERS = [
    pytest.param([], set(), True, id="nobody"),
    pytest.param([JOB_OWNER, {**JOB_OWNER, "uid": "2"}], {"1", "2"}, False, id="shared-by-jobs"),
    pytest.param([{**JOB_OWNER, "controller": True}], {"1"}, False, id="a-jobs-own"),
    pytest.param([JOB_OWNER, {"kind": "CronJob", "name": "c", "uid": "9", "controller": True}], {"9"}, True, id="a-cron-jobs"),
    pytest.param([{"kind": "Job", "name": "c", "uid": "5"}], {"5"}, False, id="a-conversions"),
]


@pytest.mark.parametrize(("owners", "uids", "foreign"), OWNERS)
def test_whose_a_job_is(owners: list[dict[str, Any]], uids: set[str], foreign: bool) -> None:
    found = reduce.job_state({"metadata": {**META, "ownerReferences": owners}})
    assert (found.owner_uids, found.foreign) == (uids, foreign)


def test_a_raycluster_belongs_to_its_controller_alone() -> None:
    for owners, uids in (([JOB_OWNER], set()), ([JOB_OWNER, {**JOB_OWNER, "uid": "2", "controller": True}], {"2"})):
        found = reduce_clusters.cluster_state({"metadata": {**ATTEMPT, "ownerReferences": owners}})
        assert found is not None and found.owner_uids == uids

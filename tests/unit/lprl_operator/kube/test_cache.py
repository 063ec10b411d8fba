"""The cache: never older, wakes exactly those for whom something changed, and forgets what a live read did not find."""

from datetime import UTC, datetime
from typing import Any

import pytest

from lprl_api import names
from lprl_operator.reconcile.kube.cache import Cache, Details
from lprl_operator.reconcile.observed import Key

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TOY = Key("ns", "toy")


def meta(name: str, version: int, uid: str = "u", **labels: str) -> dict[str, Any]:
    found = {"name": name, "namespace": "ns", "uid": uid, "resourceVersion": str(version), "labels": labels}
    return {**found, "creationTimestamp": "2026-01-01T00:00:00Z"}


def owned(document: dict[str, Any], *jobs: str) -> dict[str, Any]:
    owners = [{"kind": names.KIND, "name": j, "uid": f"uid-{j}"} for j in jobs]
    document["metadata"]["ownerReferences"] = owners
    return document


def conversion(version: int, completed: str, *jobs: str) -> dict[str, Any]:
    labels = {names.LABEL_CONTENT_KEY: "abc"}
    status = {"completedIndexes": completed}
    return owned({"metadata": {**meta("lprl-convert-abc", version), "labels": labels}, "spec": {"completions": 4}, "status": status}, *jobs)


def cluster(version: int, ready: int = 0, name: str = "toy-a1") -> dict[str, Any]:
    labels = {names.LABEL_JOB: "toy", names.LABEL_ATTEMPT: "1"}
    spec, status = {"workerGroupSpecs": [{"replicas": 2}]}, {"readyWorkerReplicas": ready}
    return {"metadata": {**meta(name, version), "labels": labels}, "spec": spec, "status": status}


def test_an_older_version_changes_nothing() -> None:
    cache = Cache()
    cache.put("RayCluster", cluster(7, ready=2))
    assert cache.put("RayCluster", cluster(5, ready=0)) == frozenset()
    assert cache.clusters(TOY)[0].ready_workers == 2


def test_only_what_a_decision_can_see_wakes_a_job() -> None:
    cache = Cache()
    assert cache.put("RayCluster", cluster(1)) == {TOY}
    assert cache.put("RayCluster", cluster(2)) == frozenset()
    assert cache.put("RayCluster", cluster(3, ready=1)) == {TOY}


def test_a_new_owner_of_a_shared_conversion_wakes_only_itself() -> None:
    cache = Cache()
    cache.put("Job", conversion(1, "0", "a", "b"))
    assert cache.put("Job", conversion(2, "0", "a", "b", "c")) == {Key("ns", "c")}
    assert cache.put("Job", conversion(3, "0-1", "a", "b", "c")) == {Key("ns", n) for n in "abc"}


def test_conversions_are_seen_by_every_job_of_the_namespace() -> None:
    cache = Cache()
    cache.put("Job", conversion(1, "0", "a"))
    seen = cache.observed(Key("ns", "newcomer"), "uid", NOW)
    assert seen.jobs["lprl-convert-abc"].completed == {0}
    assert list(cache.observed(Key("other", "x"), "uid", NOW).jobs) == []
    cache.remove("Job", conversion(1, "0", "a"))
    assert "lprl-convert-abc" not in cache.observed(Key("ns", "newcomer"), "uid", NOW).jobs


def test_a_live_read_removes_what_it_did_not_find() -> None:
    cache = Cache()
    cache.put("RayCluster", cluster(1))
    cache.replace_live(TOY, [], [], Details((), NOW))
    assert cache.clusters(TOY) == ()


def test_a_delete_of_an_earlier_object_of_the_name_is_ignored() -> None:
    cache = Cache()
    cache.put("RayCluster", cluster(9))
    assert cache.remove("RayCluster", {"metadata": meta("toy-a1", 3, uid="before")}) == frozenset()
    assert len(cache.clusters(TOY)) == 1


def progress(attempt: int, owner: str) -> dict[str, Any]:
    labels = {names.LABEL_JOB: "toy", names.LABEL_ATTEMPT: str(attempt)}
    found = {**meta(f"toy-a{attempt}-progress", attempt), "labels": labels, "ownerReferences": [{"uid": owner, "controller": True}]}
    return {"metadata": found, "data": {names.PROGRESS_KEY: f"report {attempt}"}}


def test_progress_is_read_from_this_jobs_newest_attempt_only() -> None:
    cache = Cache()
    for document in (progress(2, "mine"), progress(10, "mine"), progress(11, "an earlier job of this name")):
        cache.put("ConfigMap", document)
    assert cache.observed(TOY, "mine", NOW).progress == "report 10"


def test_job_documents_come_back_without_managed_fields() -> None:
    cache = Cache()
    document = {"metadata": {**meta("toy", 1), "managedFields": [{"manager": "kubectl"}]}, "spec": {"suspend": False}}
    assert cache.put(names.KIND, document) == {TOY}
    found = cache.document(TOY)
    assert found is not None and "managedFields" not in found["metadata"] and found["spec"] == {"suspend": False}


def test_a_status_written_by_hand_does_not_break_metrics() -> None:
    cache = Cache()
    cache.put(names.KIND, {"metadata": meta("toy", 1), "spec": {}, "status": {"phase": "Running", "training": {"step": "no number"}}})
    assert [(s.phase, s.step) for _, s in cache.summaries()] == [("Running", None)]


def head_pod(version: int, **status: Any) -> dict[str, Any]:
    labels = {names.LABEL_JOB: "toy", names.LABEL_ATTEMPT: "1", names.LABEL_ROLE: "head", "ray.io/node-type": "head"}
    owner = {"kind": "RayCluster", "name": "toy-a1", "uid": "cluster-1", "controller": True}
    return {"metadata": {**meta("toy-a1-head", version), "labels": labels, "ownerReferences": [owner]}, "spec": {}, "status": status}


EVICTED = {"phase": "Running", "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]}
KILLED = {
    "phase": "Running",
    "containerStatuses": [{"name": "ray-head", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}],
}


@pytest.mark.parametrize(("status", "told"), [(EVICTED, True), (KILLED, True), ({"phase": "Running"}, False)])
def test_how_a_head_ended_is_remembered_when_it_is_gone(status: dict[str, Any], told: bool) -> None:
    cache = Cache()
    cache.put(names.KIND, {"metadata": meta("toy", 1), "spec": {}})
    cache.put("Pod", head_pod(2, phase="Running"))
    cache.remove("Pod", head_pod(3, **status))
    assert ("cluster-1" in cache.observed(TOY, "mine", NOW).departed) == told
    cache.forget(TOY)
    assert not cache.observed(TOY, "mine", NOW).departed

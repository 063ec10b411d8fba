"""The cache: never older, wakes exactly those for whom something changed, and forgets what a live read did not find."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from lprl_api import names
from lprl_operator.decide.observed import Key
from lprl_operator.places.kube import reduce
from lprl_operator.places.kube.cache import Cache, Details

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
    assert cache.put("RayCluster", cluster(5, ready=0)).keys == frozenset()
    assert cache.clusters(TOY)[0].ready_workers == 2


def test_only_what_a_decision_can_see_wakes_a_job() -> None:
    cache = Cache()
    assert cache.put("RayCluster", cluster(1)).keys == {TOY}
    assert cache.put("RayCluster", cluster(2)).keys == frozenset()
    assert cache.put("RayCluster", cluster(3, ready=1)).keys == {TOY}


def test_a_new_owner_of_a_shared_conversion_wakes_only_itself() -> None:
    cache = Cache()
    cache.put("Job", conversion(1, "0", "a", "b"))
    assert cache.put("Job", conversion(2, "0", "a", "b", "c")).keys == {Key("ns", "c")}
    assert cache.put("Job", conversion(3, "0-1", "a", "b", "c")).keys == {Key("ns", n) for n in "abc"}


def finalise(version: int, completed: bool = False) -> dict[str, Any]:
    labels = {names.LABEL_CONTENT_KEY: "abc"}
    owner = {"kind": "Job", "name": "lprl-convert-abc", "uid": "u"}
    status = {"conditions": [{"type": "Complete", "status": "True"}]} if completed else {}
    found = {**meta("lprl-finalise-abc", version, uid="f"), "labels": labels, "ownerReferences": [owner]}
    return {"metadata": found, "spec": {}, "status": status}


def test_a_finalise_job_concerns_whoever_wants_the_conversion_by_then() -> None:
    cache = Cache()
    cache.put("Job", conversion(1, "0-3", "a"))
    assert cache.put("Job", finalise(2)).keys == {Key("ns", "a")}
    cache.put("Job", conversion(3, "0-3", "a", "b"))
    ended = cache.put("Job", finalise(4, completed=True))
    assert ended.keys == ended.urgent == {Key("ns", "a"), Key("ns", "b")}


def test_shards_that_are_all_done_call_for_one_of_those_who_want_them() -> None:
    cache = Cache()
    for name in "abc":
        cache.put(
            names.KIND, {"metadata": meta(name, 1, uid=f"uid-{name}"), "spec": {}, "status": {"phase": "Failed" if name == "a" else ""}}
        )
    cache.put("Job", conversion(1, "0-2", "a", "b", "c"))
    done = conversion(2, "0-3", "a", "b", "c")
    done["status"]["conditions"] = [{"type": "Complete", "status": "True"}]
    found = cache.put("Job", done)
    assert found.keys == {Key("ns", n) for n in "abc"} and found.urgent == {Key("ns", "b")}


def test_getting_on_is_routine_and_turns_are_not() -> None:
    cache = Cache()
    assert not cache.put("RayCluster", cluster(1)).urgent
    assert not cache.put("RayCluster", cluster(2, ready=1)).urgent
    settled = cluster(3, ready=2)
    settled["status"]["conditions"] = [{"type": "HeadPodReady", "status": "True"}]
    assert cache.put("RayCluster", settled).urgent
    assert not cache.put("Job", conversion(1, "0", "a")).urgent
    assert not cache.put("Job", conversion(2, "0-1", "a")).urgent
    assert not cache.put("Pod", head_pod(1, phase="Pending")).urgent
    assert not cache.put("Pod", head_pod(2, phase="Running")).urgent
    assert cache.put("Pod", head_pod(3, **KILLED)).urgent


@pytest.mark.parametrize(
    ("before", "after", "urgent"),
    [
        pytest.param({"phase": "training", "step": 1}, {"phase": "training", "step": 2}, False, id="a-step-more"),
        pytest.param({"phase": "starting"}, {"phase": "loading"}, True, id="it-begins"),
        pytest.param({"phase": "loading"}, {"phase": "training"}, False, id="it-runs-already"),
        pytest.param({"phase": "training"}, {"phase": "stopping"}, True, id="it-is-about-to-end"),
        pytest.param({"phase": "training"}, {"phase": "training", "stability": {"state": "drifting"}}, True, id="the-guard-speaks"),
        pytest.param({"phase": "training"}, None, True, id="unreadable"),
    ],
)
def test_which_reports_cannot_wait(before: dict[str, Any], after: dict[str, Any] | None, urgent: bool) -> None:
    cache = Cache()
    for version, report in ((1, before), (2, after)):
        document = progress(1, "mine")
        document["metadata"]["resourceVersion"] = str(version)
        document["data"][names.PROGRESS_KEY] = json.dumps(report) if report is not None else "{no json"
        found = cache.put("ConfigMap", document)
    assert found.keys == {TOY} and bool(found.urgent) is urgent


def test_the_echo_of_our_own_write_wakes_nobody() -> None:
    cache = Cache()
    written = {"metadata": meta("toy", 5), "spec": {}, "status": {"phase": "Running"}}
    cache.put(names.KIND, written)
    assert cache.put(names.KIND, written).keys == frozenset()


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
    assert cache.remove("RayCluster", {"metadata": meta("toy-a1", 3, uid="before")}).keys == frozenset()
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
    assert cache.put(names.KIND, document).keys == {TOY}
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
    cache.forget(TOY, cache.uid(TOY))
    assert not cache.observed(TOY, "mine", NOW).departed


def test_a_job_that_came_under_the_name_of_one_that_is_gone_is_not_forgotten_with_it() -> None:
    cache = Cache()
    cache.put(names.KIND, {"metadata": meta("toy", 1, uid="first"), "spec": {}})
    cache.put(names.KIND, {"metadata": meta("toy", 2, uid="second"), "spec": {}})
    cache.forget(TOY, "first")
    assert cache.uid(TOY) == "second"
    cache.forget(TOY, "second")
    assert cache.document(TOY) is None


def test_nothing_stays_of_a_job_whose_pods_are_gone() -> None:
    cache = Cache()
    labels = {reduce.JOB_NAME: "toy-inspect", names.LABEL_JOB: "toy"}
    owner = {"kind": "Job", "name": "toy-inspect", "uid": "job-uid", "controller": True}
    pod = {"metadata": {**meta("toy-inspect-x", 1), "labels": labels, "ownerReferences": [owner]}, "spec": {}, "status": {}}
    cache.put("Pod", pod)
    cache.remove("Pod", pod)
    assert not cache._pods_of_job

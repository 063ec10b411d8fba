"""Reader: what a live read adds to what the watches told."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lprl_api import names
from lprl_operator.decide.observed import Key
from lprl_operator.places.kube import reduce
from lprl_operator.places.kube.cache import Cache
from lprl_operator.places.kube.reader import Reader

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TOY = Key("ns", "toy")
JOBS = f"/apis/{names.API_VERSION}/namespaces/ns/{names.PLURAL}"


class Lists:
    """An API server that answers lists: items by path; what was asked for is noted."""

    def __init__(self, **items: list[dict[str, Any]]) -> None:
        self.items = items
        self.asked: list[tuple[str, dict[str, str]]] = []

    def get(self, path: str, **query: str) -> dict[str, Any]:
        self.asked.append((path, query))
        return {"items": self.items.get(path.rpartition("/")[2], [])}


def meta(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "namespace": "ns", "uid": f"uid-{name}", "resourceVersion": "1", **more}


def test_a_job_is_read_by_name_from_a_list() -> None:
    document = {"metadata": meta("toy"), "spec": {}}
    api, cache = Lists(**{names.PLURAL: [document]}), Cache()
    assert Reader(api, cache).job(TOY) == document  # type: ignore[arg-type]
    assert api.asked == [(JOBS, {"fieldSelector": "metadata.name=toy"})]
    assert cache.uid(TOY) == "uid-toy"


def test_a_job_that_is_gone_is_none() -> None:
    assert Reader(Lists(), Cache()).job(TOY) is None  # type: ignore[arg-type]


def inspect_job(ended: str) -> dict[str, Any]:
    owner = {"kind": names.KIND, "name": "toy", "uid": "uid-toy", "controller": True}
    status = {"conditions": [{"type": ended, "status": "True"}]} if ended else {}
    return {"metadata": meta("toy-inspect", ownerReferences=[owner]), "spec": {}, "status": status}


def inspect_pod(number: int = 0, code: int = 0, message: str = "the report") -> dict[str, Any]:
    owner = {"kind": "Job", "name": "toy-inspect", "uid": "uid-toy-inspect", "controller": True}
    labels = {reduce.JOB_NAME: "toy-inspect", names.LABEL_JOB: "toy"}
    ended = {
        "name": "inspect",
        "state": {"terminated": {"exitCode": code, "message": message, "finishedAt": f"2026-01-01T00:00:0{number}Z"}},
    }
    status = {"phase": "Failed" if code else "Succeeded", "containerStatuses": [ended]}
    return {
        "metadata": meta(f"toy-inspect-{number}", creationTimestamp=f"2026-01-01T00:00:0{number}Z", ownerReferences=[owner], labels=labels),
        "spec": {},
        "status": status,
    }


@pytest.mark.parametrize("finished", [True, False])
def test_a_report_whose_pod_no_watch_told_of_yet_is_fetched(finished: bool) -> None:
    """Jobs and pods are two watches: without this a job would be judged to have ended without a report."""
    api, cache = Lists(pods=[inspect_pod()]), Cache()
    cache.put("Job", inspect_job("Complete" if finished else ""))
    Reader(api, cache).children(TOY, {"metadata": meta("toy")}, NOW)  # type: ignore[arg-type]
    seen = cache.observed(TOY, "uid-toy", NOW).inspect
    assert seen is not None and [e.message for e in seen.exits] == (["the report"] if finished else [])


@pytest.mark.parametrize(("ended", "code", "message"), [("Complete", 0, "the report"), ("Failed", 3, "no config.json")])
def test_an_earlier_pod_that_crashed_does_not_hide_how_the_job_ended(ended: str, code: int, message: str) -> None:
    api, cache = Lists(pods=[inspect_pod(1, code, message)]), Cache()
    cache.put("Job", inspect_job(ended))
    cache.put("Pod", inspect_pod(0, 137, "killed"))
    Reader(api, cache).children(TOY, {"metadata": meta("toy")}, NOW)  # type: ignore[arg-type]
    seen = cache.observed(TOY, "uid-toy", NOW).inspect
    assert seen is not None and (code, message) in [(e.exit_code, e.message) for e in seen.exits]


def test_only_a_kind_that_is_listed_can_be_missing() -> None:
    """Another one would never be found again, and every job would be read anew every few seconds because of it."""
    cache = Cache()
    reader = Reader(Lists(), cache)  # type: ignore[arg-type]
    cache.put(names.KIND, {"metadata": meta("toy"), "spec": {}})
    reader.children(TOY, {"metadata": meta("toy")}, NOW)
    reader.kind_is_missing("PodMonitor")
    assert not reader.is_due(TOY, NOW + timedelta(minutes=1))
    reader.kind_is_missing("RayCluster")
    assert reader.is_due(TOY, NOW + timedelta(minutes=1))


def suspended(kind: str = "RayClusterSuspending") -> dict[str, Any]:
    labels = {names.LABEL_JOB: "toy", names.LABEL_ATTEMPT: "1"}
    owner = {"kind": names.KIND, "name": "toy", "uid": "uid-toy", "controller": True}
    status = {"conditions": [{"type": kind, "status": "True"}]}
    return {"metadata": meta("toy-a1", labels=labels, ownerReferences=[owner]), "spec": {"suspend": True}, "status": status}


def worker() -> dict[str, Any]:
    labels = {names.LABEL_JOB: "toy", names.LABEL_ATTEMPT: "1", "ray.io/node-type": "worker"}
    owner = {"kind": "RayCluster", "name": "toy-a1", "uid": "uid-toy-a1", "controller": True}
    return {"metadata": meta("toy-a1-worker", labels=labels, ownerReferences=[owner]), "spec": {}, "status": {"phase": "Running"}}


def test_pods_of_a_cluster_that_is_suspended_are_listed_until_they_are_gone() -> None:
    """Nothing else tells of workers: the next attempt waits for them, and one on a dead node has to be found out."""
    api, cache = Lists(rayclusters=[suspended()], pods=[worker()]), Cache()
    reader = Reader(api, cache)  # type: ignore[arg-type]
    cache.put(names.KIND, {"metadata": meta("toy"), "spec": {}, "status": {"attempt": 1}})
    cache.put("RayCluster", suspended())
    assert reader.is_due(TOY, NOW), "never listed"
    reader.children(TOY, {"metadata": meta("toy"), "status": {"attempt": 1}}, NOW)
    assert not reader.is_due(TOY, NOW + timedelta(seconds=1))
    assert reader.is_due(TOY, NOW + timedelta(seconds=4))
    emptied = suspended("RayClusterSuspended")
    emptied["metadata"]["resourceVersion"] = "2"
    cache.put("RayCluster", emptied)
    assert reader.is_due(TOY, NOW + timedelta(seconds=1)), "KubeRay knows more than the list"
    api.items = {"rayclusters": [emptied], "pods": []}
    reader.children(TOY, {"metadata": meta("toy"), "status": {"attempt": 1}}, NOW)
    assert not reader.is_due(TOY, NOW + timedelta(minutes=1)), "a job that waits in a queue is not listed again"


DEAD = {"status": {"conditions": [{"type": "Ready", "status": "Unknown", "lastTransitionTime": "2025-12-31T23:00:00Z"}]}}


class DeadNode(Lists):
    """An API server whose one node does not answer any more."""

    def get(self, path: str, **query: str) -> dict[str, Any]:
        listed = super().get(path, **query)
        return DEAD if "/nodes/" in path else listed


@pytest.mark.parametrize(("phase", "deleting", "lost"), [("Pending", True, True), ("Running", True, True), ("Pending", False, False)])
def test_a_pod_that_does_not_go_from_a_dead_node_is_lost_though_it_never_ran(phase: str, deleting: bool, lost: bool) -> None:
    """Its image was being pulled when the node died: it stays Pending, and nothing but its node tells that it will never go."""
    pod = worker()
    pod["spec"], pod["status"] = {"nodeName": "dead"}, {"phase": phase}
    pod["metadata"] |= {"deletionTimestamp": "2025-12-31T23:05:00Z"} if deleting else {}
    cache = Cache()
    reader = Reader(DeadNode(rayclusters=[suspended()], pods=[pod]), cache)  # type: ignore[arg-type]
    reader.children(TOY, {"metadata": meta("toy"), "status": {"attempt": 1}}, NOW)
    (seen,) = reader.completed(TOY, cache.observed(TOY, "uid-toy", NOW), ()).pods
    assert seen.unreachable_since == (datetime(2025, 12, 31, 23, tzinfo=UTC) if lost else None)

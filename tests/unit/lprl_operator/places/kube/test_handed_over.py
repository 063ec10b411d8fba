"""A RayCluster that is passed on through an API server which may say no."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from lprl_api import names
from lprl_operator.decide.actions import Hold, Raise, Relabel
from lprl_operator.decide.observed import Key, ObjectRef
from lprl_operator.kube.api import ApiError
from lprl_operator.places import handover
from lprl_operator.places.kube.cache import Cache
from lprl_operator.places.kube.cluster import KubeCluster
from lprl_operator.places.kube.eventlog import EventLog

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REF = ObjectRef("ray.io/v1", "RayCluster", "ns", "toy-a1")


class Server:
    """It refuses patches until it does not."""

    clock = SimpleNamespace(now=lambda: NOW)
    refuses = True

    def patch(self, path: str, document: Any, kind: str) -> dict[str, Any]:
        if self.refuses:
            raise ApiError(403, "Forbidden", 'cannot patch resource "rayclusters"')
        return {"metadata": {"name": "toy-a1", "namespace": "ns", "uid": "u", "resourceVersion": "2"}}


def test_a_refused_patch_is_seen_until_it_succeeds() -> None:
    server: Any = Server()
    cluster = KubeCluster(server, Cache(), EventLog(server, "test", start=False))
    with pytest.raises(ApiError):
        cluster.apply([Hold(REF, "u", 1, "toy")])
    (refusal,) = cluster.observe(Key("ns", "toy")).refusals
    assert (refusal.ref, refusal.message, refusal.permanent) == (REF, 'cannot patch resource "rayclusters"', False)
    server.refuses = False
    cluster.apply([Hold(REF, "u", 1, "toy")])
    assert cluster.observe(Key("ns", "toy")).refusals == ()


def test_a_shared_job_is_raised_only_as_it_was_seen() -> None:
    job = {"metadata": {"uid": "u", "resourceVersion": "7", "labels": {"kueue.x-k8s.io/priority-class": "low", "mine": "x"}}}
    ref = ObjectRef("batch/v1", "Job", "ns", "lprl-convert-1")
    found = handover.patched(job, handover.patch(Raise(ref, "u", "7", "toy", "high")))
    assert found["metadata"]["labels"] == {"kueue.x-k8s.io/priority-class": "high", "mine": "x"}
    for uid, version in (("other", "7"), ("u", "8")):
        with pytest.raises(handover.TestFailedError):
            handover.patched(job, handover.patch(Raise(ref, uid, version, "toy", "high")))


def test_labels_of_a_queue_are_written_on_what_was_seen_alone() -> None:
    labels = {names.LABEL_QUEUE: "tema", "mine": "stays"}
    cluster = {"metadata": {"uid": "u", "resourceVersion": "7", "labels": labels}, "spec": {"suspend": True}}
    ref = ObjectRef("ray.io/v1", "RayCluster", "rl", "toy-a1")
    wish = Relabel(ref, "u", "7", "toy", ((names.LABEL_QUEUE, "team"), (names.LABEL_PRIORITY, "urgent")))
    found = handover.patched(cluster, handover.patch(wish))
    assert found["metadata"]["labels"] == {names.LABEL_QUEUE: "team", names.LABEL_PRIORITY: "urgent", "mine": "stays"}
    assert found["spec"] == cluster["spec"]
    with pytest.raises(handover.TestFailedError):
        handover.patched({**cluster, "metadata": {**cluster["metadata"], "resourceVersion": "8"}}, handover.patch(wish))

"""What was true once is not told for ever: outages of nodes, and refusals of objects that nobody makes any more."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from lprl_api import names
from lprl_operator.decide.actions import Create
from lprl_operator.decide.observed import Key, PodState
from lprl_operator.kube.api import ApiError
from lprl_operator.places.kube.cache import Cache
from lprl_operator.places.kube.cluster import KubeCluster
from lprl_operator.places.kube.eventlog import EventLog
from lprl_operator.places.kube.reader import Reader

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ONE, OTHER = Key("ns", "one"), Key("ns", "other")


class Nodes:
    """An API server with one node, which is Unknown since `lost`, Ready, or gone."""

    lost: datetime | None = None
    gone = False

    def get(self, path: str, **_: str) -> dict[str, Any]:
        if self.gone:
            raise ApiError(404, "NotFound", path)
        status, since = ("Unknown", self.lost) if self.lost else ("True", NOW)
        return {"status": {"conditions": [{"type": "Ready", "status": status, "lastTransitionTime": since.strftime("%Y-%m-%dT%H:%M:%SZ")}]}}


def head(name: str) -> PodState:
    return PodState(f"{name}-head", f"uid-{name}", 1, "head", "Running", False, node="n1")


def outage(reader: Reader) -> datetime | None:
    return reader._node_lost.get("n1")


@pytest.fixture
def nodes() -> Nodes:
    return Nodes()


@pytest.fixture
def reader(nodes: Nodes) -> Reader:
    return Reader(nodes, Cache())  # type: ignore[arg-type]


def test_a_second_outage_counts_from_its_own_beginning(nodes: Nodes, reader: Reader) -> None:
    nodes.lost = NOW
    reader._look_at_nodes(ONE, [head("one")], NOW)
    nodes.lost = NOW + timedelta(days=3)
    reader._look_at_nodes(OTHER, [head("other")], nodes.lost + timedelta(seconds=40))
    assert outage(reader) == nodes.lost


def test_a_node_that_is_taken_away_was_lost_before(nodes: Nodes, reader: Reader) -> None:
    nodes.lost = NOW
    reader._look_at_nodes(ONE, [head("one")], NOW)
    nodes.gone = True
    reader._look_at_nodes(ONE, [head("one")], NOW + timedelta(seconds=300))
    assert outage(reader) == NOW


def test_a_node_that_no_pod_is_on_is_forgotten(nodes: Nodes, reader: Reader) -> None:
    nodes.gone = True
    for key in (ONE, OTHER):
        reader._look_at_nodes(key, [head(key.name)], NOW)
    reader._look_at_nodes(ONE, [], NOW)
    assert outage(reader) == NOW
    reader.forget(OTHER)
    assert outage(reader) is None


class Quota:
    """An API server that takes no RayCluster named here."""

    def __init__(self) -> None:
        self.now, self.full = NOW, {"one-a1"}
        self.clock = SimpleNamespace(now=lambda: self.now)

    def post(self, path: str, document: dict[str, Any], **_: str) -> dict[str, Any]:
        name = document["metadata"]["name"]
        if name in self.full:
            raise ApiError(403, "Forbidden", "exceeded quota: team")
        return {**document, "metadata": {**document["metadata"], "uid": name, "resourceVersion": "1"}}


def ray_cluster(name: str) -> dict[str, Any]:
    owner = {"apiVersion": names.API_VERSION, "kind": names.KIND, "name": "one", "uid": "uid-one", "controller": True}
    meta = {"name": name, "namespace": "ns", "labels": {names.LABEL_JOB: "one"}, "ownerReferences": [owner]}
    return {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": meta, "spec": {}}


@pytest.mark.parametrize("how", ["the next attempt's is made", "nobody tries any more"])
def test_a_refusal_ends_when_the_job_has_moved_on(how: str) -> None:
    server: Any = Quota()
    cluster = KubeCluster(server, Cache(), EventLog(server, "test", start=False))
    cluster.apply([Create(ray_cluster("one-a1"))])
    assert [r.message for r in cluster.observe(ONE).refusals] == ["exceeded quota: team"]
    if how == "nobody tries any more":
        server.now += timedelta(hours=1)
    else:
        cluster.apply([Create(ray_cluster("one-a2"))])
    assert cluster.observe(ONE).refusals == ()

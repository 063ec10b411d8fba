"""What Kueue does to live children, done by a test: held, admitted with scheduling merged into their pods, evicted with it taken back.

Kueue itself does not run here. The operator runs with the chart's rights and must neither fight an edit nor lose one.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.chart import operators, tools
from tests.chart.tools import CHART, CRD, kubectl, read
from tests.contract.hand import Hand, manifest

from lprl_operator.kube.api import JSON_PATCH, MERGE, KubeApi

pytestmark = pytest.mark.cluster
NAMESPACE = "lprl-chart-queue"
JOB = "queued"
LABELS = {"kueue.x-k8s.io/queue-name": "blue"}
TOLERATION = {"key": "pool", "operator": "Equal", "value": "blue", "effect": "NoSchedule"}
GATE = "kueue.x-k8s.io/topology"
CALM_S = 4.0
"""Longer than the operator waits before it looks at something it has just changed or seen changed."""

PLAYED_S = 420.0
"""KubeRay ends a suspension before it looks at what is wished by then: at its next look, which may be 300 s away."""


@dataclass
class Queue:
    """Plays Kueue for the children of one namespace."""

    api: KubeApi

    def hold(self, path: str) -> dict[str, Any]:
        """Suspend; returns the spec as it was made. (Kueue's webhook does it at creation.)"""
        found = self.api.patch(path, {"spec": {"suspend": True}}, MERGE)
        return dict(found["spec"])

    def admit(self, path: str) -> None:
        """Merge a flavour into every pod template, then let it go."""
        found = self.api.get(path)
        spec = found["spec"]
        if found["kind"] == "Job":  # as Kueue does: the API server lets nobody change the pods of a Job that has a start
            self.api.patch(f"{path}/status", {"status": {"startTime": None}}, MERGE)
        for template in templates(spec):
            template["metadata"].setdefault("labels", {})["kueue.x-k8s.io/podset"] = "main"
            pod = template["spec"]
            pod["nodeSelector"] = {**(pod.get("nodeSelector") or {}), "pool": "blue"}
            pod["tolerations"] = [*(pod.get("tolerations") or ()), TOLERATION]
            pod["schedulingGates"] = [*(pod.get("schedulingGates") or ()), {"name": GATE}]
        self.api.patch(path, {"spec": changed(spec)}, MERGE)
        self.api.patch(path, {"spec": {"suspend": False}}, MERGE)

    def evict(self, path: str, made: dict[str, Any]) -> None:
        """Take everything back."""
        back = [{"op": "replace", "path": f"/spec/{part}", "value": value} for part, value in changed(made).items()]
        self.api.patch(path, [*back, {"op": "add", "path": "/spec/suspend", "value": True}], JSON_PATCH)


def templates(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Pod templates of a Job or a RayCluster."""
    if "template" in spec:
        return [spec["template"]]
    return [spec["headGroupSpec"]["template"], *(g["template"] for g in spec["workerGroupSpecs"])]


def changed(spec: dict[str, Any]) -> dict[str, Any]:
    """The part of a spec with the pod templates."""
    return {k: spec[k] for k in ("template", "headGroupSpec", "workerGroupSpecs") if k in spec}


def attempts(cluster: dict[str, Any]) -> set[str]:
    """Which attempts the pod templates of a RayCluster are labelled with."""
    return {t["metadata"]["labels"]["lprl.dev/attempt"] for t in templates(cluster["spec"])}


def marked(pod: dict[str, Any]) -> bool:
    """Whether a pod has all that was merged in."""
    spec = pod["spec"]
    gates = [g["name"] for g in spec.get("schedulingGates") or ()]
    return (spec.get("nodeSelector") or {}).get("pool") == "blue" and TOLERATION in spec["tolerations"] and gates == [GATE]


@pytest.fixture
def world(server: Path | None, tmp_path: Path) -> Iterator[KubeApi]:
    if kubectl("get", "crd", CRD, "--ignore-not-found") and server is None:
        pytest.skip("this cluster knows lprl's jobs already, and an operator may serve it")
    health, metrics = operators.free_ports(2)
    ports = (
        "--set",
        f"config.healthPort={health}",
        "--set",
        f"config.metrics.port={metrics}",
        "--set",
        f"config.namespaces={{{NAMESPACE}}}",
    )
    tools.release_namespace(NAMESPACE)
    tools.run("helm", "install", "lprl", str(CHART), "--namespace", NAMESPACE, "--take-ownership", *ports)
    tools.established(CRD)
    with operators.running(tmp_path, NAMESPACE, health) as log:
        yield operators.god()
    assert "forbidden" not in log.read_text().lower()
    tools.run("helm", "uninstall", "lprl", "--namespace", NAMESPACE, check=False)
    tools.leave(NAMESPACE)


def status() -> dict[str, Any]:
    path = f"/apis/lprl.dev/v1alpha1/namespaces/{NAMESPACE}/lowprecisionrljobs/{JOB}"
    return dict(operators.god().get(path).get("status") or {})


def clusters() -> list[str]:
    return [c["metadata"]["name"] for c in operators.god().get(f"/apis/ray.io/v1/namespaces/{NAMESPACE}/rayclusters")["items"]]


def reason(kind: str) -> str:
    return next((c["reason"] for c in status().get("conditions", ()) if c["type"] == kind), "")


def left_alone(api: KubeApi, path: str) -> None:
    """Nobody edits it for a while: the operator saw the edit and lets it be."""
    before = api.get(path)
    time.sleep(CALM_S)
    after = api.get(path)
    assert after["metadata"]["generation"] == before["metadata"]["generation"] and after["spec"] == before["spec"]


def pods(selector: str) -> list[dict[str, Any]]:
    return list(operators.god().get(f"/api/v1/namespaces/{NAMESPACE}/pods", labelSelector=selector)["items"])


def played(hand: Hand, done: Any, what: str) -> None:
    def looked() -> Any:
        hand.step()
        return done()

    operators.until(looked, what, PLAYED_S)


def test_edits_of_a_queue_are_never_fought_and_never_lost(world: KubeApi) -> None:
    queue, hand = Queue(world), Hand(world, NAMESPACE, kubelet=False)
    hand.roles, hand.drives = frozenset(), False
    document = manifest(JOB, NAMESPACE, failurePolicy={"backoffSeconds": 0})
    document["metadata"]["labels"] = LABELS
    world.post(f"/apis/lprl.dev/v1alpha1/namespaces/{NAMESPACE}/lowprecisionrljobs", document)

    inspect = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{JOB}-inspect"
    operators.until(lambda: pods("lprl.dev/role=inspect"), "an inspect pod")
    assert LABELS.items() <= world.get(inspect)["metadata"]["labels"].items()
    queue.hold(inspect)
    operators.until(lambda: not pods("lprl.dev/role=inspect"), "a held Job has no pods")
    left_alone(world, inspect)
    queue.admit(inspect)
    operators.until(lambda: [p for p in pods("lprl.dev/role=inspect") if marked(p)], "an admitted inspect pod")

    hand.roles = None
    one = f"/apis/ray.io/v1/namespaces/{NAMESPACE}/rayclusters/{JOB}-a1"
    played(hand, clusters, "a cluster")
    made = queue.hold(one)
    operators.until(lambda: reason("ClusterReady") == "Queued", "told as queued")
    left_alone(world, one)
    operators.until(lambda: world.get(one).get("status", {}).get("state") == "suspended", "KubeRay holds it")
    queue.admit(one)
    hand.kubelet = True
    played(hand, lambda: status().get("phase") == "Running", "it runs")
    assert all(marked(p) for p in pods("ray.io/cluster") if "deletionTimestamp" not in p["metadata"])
    left_alone(world, one)

    evicted_and_admitted_again(world, queue, hand, one, made)
    hand.drives = True
    played(hand, lambda: status().get("phase") == "Succeeded", "it succeeds")
    found = status()
    assert (found["attempt"], found.get("restartsUsed", 0)) == (2, 0)
    events = read("events", "-n", NAMESPACE, "--field-selector", f"involvedObject.name={JOB}")["items"]
    assert "Evicted" in {e["reason"] for e in events}


def evicted_and_admitted_again(world: KubeApi, queue: Queue, hand: Hand, one: str, made: dict[str, Any]) -> None:
    """The same RayCluster trains the next attempt."""
    uid = world.get(one)["metadata"]["uid"]
    queue.evict(one, made)
    played(hand, lambda: attempts(world.get(one)) == {"2"}, "the next attempt's number, in the templates that the queue put back")
    operators.until(lambda: reason("ClusterReady") == "Queued", "told as queued")
    operators.until(lambda: world.get(one).get("status", {}).get("state") == "suspended", "KubeRay holds it")
    assert world.get(one)["spec"]["suspend"] is True, "only the queue lets go"
    queue.admit(one)
    played(hand, lambda: status().get("phase") == "Running", "it runs again")
    assert (clusters(), world.get(one)["metadata"]["uid"]) == ([f"{JOB}-a1"], uid), "its place in the queue is the RayCluster's"

"""Plays kubelets and pods on a control plane without nodes: the real Job controller and the real KubeRay make the pods, this ends them."""

import json
from datetime import UTC, datetime
from typing import Any

from tests.toy import SHAPE

from lprl_api import names
from lprl_api.model.model_shape import Inspection
from lprl_api.wire.progress import Progress, Termination
from lprl_operator.kube.api import MERGE, ApiError, KubeApi
from lprl_operator.places.kube import reduce

INSPECTION = Inspection(shape=SHAPE, fingerprint="ab" * 32, total_bytes=1_000_000, tensors=24, shards=2)
STEPS = 3


def manifest(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    """A small job whose pods this plays."""
    claims = {n: {"persistentVolumeClaim": n} for n in ("models", "data", "checkpoints")}
    base: dict[str, Any] = {
        "model": {"source": {"volume": "models", "path": "toy"}},
        "precision": {"training": "int4-qat", "rollout": "int4", "int4": {"groupSize": 32}},
        "conversion": {"volume": "models", "parallelism": 2},
        "data": {"prompts": {"volume": "data", "path": "train.jsonl"}, "reward": {"type": "exact"}},
        "algorithm": {"steps": STEPS, "rolloutBatchSize": 4, "samplesPerPrompt": 4},
        "sampling": {"maxResponseTokens": 4},
        "topology": {"accelerator": "cpu", "nodes": 1},
        "checkpoint": {"volume": "checkpoints"},
        "volumes": claims,
    }
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": meta, "spec": {**base, **spec}}


class Hand:
    """Brings every pod of a namespace one step further; remembers every object it ever saw, by kind and name."""

    def __init__(self, api: KubeApi, namespace: str, inspection: Inspection = INSPECTION, steps: int = STEPS, kubelet: bool = True) -> None:
        self._api, self._namespace, self._inspection, self._steps = api, namespace, inspection, steps
        self.kubelet = kubelet
        """Whether pods of clusters come up."""
        self.roles: frozenset[str] | None = None
        """Roles of Job pods that are ended; None: all."""
        self.reports = self.drives = True
        """Whether drivers report, and whether they end."""
        self.seen: dict[tuple[str, str], set[str]] = {}

    def step(self) -> None:
        """Look at Jobs, clusters and pods once."""
        for kind, path in (("Job", "/apis/batch/v1"), ("RayCluster", "/apis/ray.io/v1")):
            for item in self._list(f"{path}/namespaces/{self._namespace}/{kind.lower()}s"):
                self.seen.setdefault((kind, item["metadata"]["name"]), set()).add(item["metadata"]["uid"])
        for pod in self._api.get(f"/api/v1/namespaces/{self._namespace}/pods")["items"]:
            phase = pod["status"].get("phase", "Pending")
            if phase == "Pending" or (phase == "Running" and reduce.label(pod, reduce.HEAD_TYPE) != "worker"):
                self._advance(pod)

    def _list(self, path: str) -> list[dict[str, Any]]:
        """The objects of a kind, none while the kind is not served."""
        try:
            return list(self._api.get(path)["items"])
        except ApiError as error:
            if error.status != 404:
                raise
            return []

    def _advance(self, pod: dict[str, Any]) -> None:
        role = reduce.label(pod, names.LABEL_ROLE)
        if "deletionTimestamp" in pod["metadata"]:
            return
        if role in ("inspect", "convert", "finalise"):
            if self.roles is not None and role not in self.roles:
                return
            text = self._inspection.model_dump_json(by_alias=True) if role == "inspect" else _said("Converted", "made")
            self._end(pod, {c["name"]: text for c in pod["spec"]["containers"]})
        elif pod["status"].get("phase") != "Running":
            if self.kubelet:
                self._run(pod)
        elif role == "head" and (self.reports or self.drives):
            self._drive(pod)

    def end_driver(self, code: int, message: str = "") -> None:
        """End the driver of every running head with an exit code of its own."""
        for pod in self._api.get(f"/api/v1/namespaces/{self._namespace}/pods", labelSelector=f"{reduce.HEAD_TYPE}=head")["items"]:
            self._status(pod, {"driver": {"terminated": _ended(code, _said("Ended", message))}}, "Running", ready=False)

    def _drive(self, pod: dict[str, Any]) -> None:
        """The driver reports its last step, then ends."""
        attempt = reduce.attempt_of(pod) or 0
        job = reduce.label(pod, names.LABEL_JOB)
        states = {s["name"]: s["state"] for s in pod["status"].get("containerStatuses", ())}
        if "running" not in states.get("driver", {}):
            return
        path = f"/api/v1/namespaces/{self._namespace}/configmaps/{job}-a{attempt}-progress"
        try:
            data = self._api.get(path).get("data") or {}
        except ApiError:
            return
        if names.PROGRESS_KEY not in data:
            report = Progress(attempt=attempt, sequence=1, phase="training", step=self._steps, steps=self._steps, reward=0.9)
            self._patch(path, {"data": {names.PROGRESS_KEY: report.model_dump_json(by_alias=True)}})
        elif self.drives:
            self._status(
                pod, {"driver": {"terminated": _ended(0, _said("Succeeded", f"finished {self._steps} steps"))}}, "Running", ready=False
            )

    def _run(self, pod: dict[str, Any]) -> None:
        running = {"running": {"startedAt": _now()}}
        self._status(pod, {c["name"]: running for c in pod["spec"]["containers"]}, "Running", ready=True)

    def _end(self, pod: dict[str, Any], messages: dict[str, str]) -> None:
        self._status(pod, {n: {"terminated": _ended(0, text)} for n, text in messages.items()}, "Succeeded", ready=False)

    def _status(self, pod: dict[str, Any], states: dict[str, Any], phase: str, ready: bool) -> None:
        before = {s["name"]: s["state"] for s in pod["status"].get("containerStatuses", ())}
        containers = [
            {
                "name": c["name"],
                "image": c["image"],
                "imageID": "none",
                "restartCount": 0,
                "ready": ready,
                "state": states.get(c["name"]) or before.get(c["name"], {"waiting": {}}),
            }
            for c in pod["spec"]["containers"]
        ]
        value = "True" if ready else "False"
        conditions = [{"type": t, "status": value, "lastTransitionTime": _now()} for t in ("Ready", "ContainersReady", "Initialized")]
        status = {"phase": phase, "containerStatuses": containers, "conditions": conditions, "podIP": "10.0.0.1"}
        self._patch(f"/api/v1/namespaces/{self._namespace}/pods/{pod['metadata']['name']}/status", {"status": status})

    def _patch(self, path: str, document: dict[str, Any]) -> None:
        try:
            self._api.patch(path, document, MERGE)
        except ApiError as error:
            if error.status not in (404, 409):
                raise


def _said(reason: str, message: str) -> str:
    return json.dumps(Termination(reason=reason, message=message).document())


def _ended(code: int, message: str) -> dict[str, Any]:
    return {
        "exitCode": code,
        "reason": "Completed" if code == 0 else "Error",
        "message": message,
        "startedAt": _now(),
        "finishedAt": _now(),
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

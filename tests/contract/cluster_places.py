"""The places that the Cluster Protocol is asked of: this machine, and a real API server."""

import json
import time
from pathlib import Path
from typing import Any, Protocol

from lprl_api import names
from lprl_operator.decide.observed import Key, ObjectRef, Observed
from lprl_operator.kube import paths
from lprl_operator.kube.api import MERGE, ApiError, KubeApi
from lprl_operator.places.cluster import Cluster
from lprl_operator.places.kube.cache import Cache
from lprl_operator.places.kube.cluster import KubeCluster
from lprl_operator.places.kube.eventlog import EventLog
from lprl_operator.places.local.cluster import LocalCluster

SPEC = {
    "model": {"source": {"volume": "v", "path": "m"}},
    "precision": {"training": "bf16", "rollout": "bf16"},
    "conversion": {"volume": "v"},
    "data": {"prompts": {"volume": "v", "path": "p.jsonl"}, "reward": {"type": "exact"}},
    "algorithm": {"steps": 1, "rolloutBatchSize": 1, "samplesPerPrompt": 2},
    "sampling": {"maxResponseTokens": 1},
    "topology": {"accelerator": "cpu", "nodes": 1},
    "checkpoint": {"volume": "v"},
    "volumes": {"v": {"persistentVolumeClaim": "claim"}},
}


class Place(Protocol):
    """An adapter with what a test does behind its back."""

    cluster: Cluster
    key: Key
    uid: str

    def report(self, name: str, text: str) -> None:
        """Write progress.json as a driver does."""

    def seen(self) -> Observed:
        """Return what is observed once everything written has been told."""

    def events(self) -> list[str]:
        """Reasons of the events posted."""

    def document(self) -> dict[str, Any]:
        """The stored job."""

    def another(self) -> dict[str, Any]:
        """Owner reference to another job that is there."""

    def passes(self) -> None:
        """Let the controllers of the place do what is due."""

    def put(self, document: dict[str, Any]) -> None:
        """Make an object as somebody else would."""

    def has(self, ref: ObjectRef) -> bool:
        """Whether an object is there."""

    def take_away(self, ref: ObjectRef) -> None:
        """Delete an object as somebody else would."""


class Local:
    def __init__(self, root: Path, cluster: LocalCluster) -> None:
        self.cluster, self._root, self.key = cluster, root, Key("default", "toy")
        self._local = cluster
        job = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": "toy"}, "spec": SPEC}
        self.uid = cluster.submit(job)["metadata"]["uid"]

    def report(self, name: str, text: str) -> None:
        folder = self._local.folders.configmaps / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / names.PROGRESS_KEY).write_text(text)

    def seen(self) -> Observed:
        return self.cluster.observe(self.key)

    def events(self) -> list[str]:
        lines = [json.loads(x) for x in self._local.folders.events.read_text().splitlines()]
        return [x["reason"] for x in lines if "reason" in x]

    def document(self) -> dict[str, Any]:
        found = self._local.document()
        assert found is not None
        return found

    def another(self) -> dict[str, Any]:
        return {"apiVersion": names.API_VERSION, "kind": names.KIND, "name": "other", "uid": "u2"}

    def passes(self) -> None:
        self._local.step()

    def put(self, document: dict[str, Any]) -> None:
        assert self._local._store.create(document)

    def has(self, ref: ObjectRef) -> bool:
        return self._local._store.get(ref.kind, ref.name) is not None

    def take_away(self, ref: ObjectRef) -> None:
        self._local._store.remove(ref.kind, ref.name)


class Kube:
    def __init__(self, namespace: str) -> None:
        self._api, self._cache, self.key = KubeApi.connect(), Cache(), Key(namespace, "toy")
        self._events = EventLog(self._api, "test")
        self.cluster = KubeCluster(self._api, self._cache, self._events)
        self._api.post("/api/v1/namespaces", {"metadata": {"name": namespace}})
        job = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": "toy"}, "spec": SPEC}
        self._jobs = f"/apis/{names.API_VERSION}/namespaces/{namespace}/{names.PLURAL}"
        made = self._api.post(self._jobs, job)
        self.uid = made["metadata"]["uid"]
        self._cache.put(names.KIND, made)

    def report(self, name: str, text: str) -> None:
        path = f"/api/v1/namespaces/{self.key.namespace}/configmaps/{name}"
        self._api.patch(path, {"data": {names.PROGRESS_KEY: text}}, MERGE)

    def seen(self) -> Observed:
        found = {
            "Job": self._api.get(f"/apis/batch/v1/namespaces/{self.key.namespace}/jobs"),
            "ConfigMap": self._api.get(f"/api/v1/namespaces/{self.key.namespace}/configmaps", labelSelector=names.LABEL_ATTEMPT),
        }
        for kind, documents in found.items():
            for document in documents["items"]:
                self._cache.put(kind, document)
        return self.cluster.observe(self.key)

    def events(self) -> list[str]:
        self._events.flush()
        items = self._api.get(f"/api/v1/namespaces/{self.key.namespace}/events", fieldSelector=f"involvedObject.uid={self.uid}")["items"]
        return [e["reason"] for e in items]

    def document(self) -> dict[str, Any]:
        return self._api.get(f"{self._jobs}/{self.key.name}")

    def another(self) -> dict[str, Any]:
        job = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": "other"}, "spec": SPEC}
        made = self._api.get(f"{self._jobs}/other") if self._is_there(f"{self._jobs}/other") else self._api.post(self._jobs, job)
        uid = made["metadata"]["uid"]
        return {"apiVersion": names.API_VERSION, "kind": names.KIND, "name": "other", "uid": uid}

    def passes(self) -> None:
        time.sleep(0.2)
        there = {j["metadata"]["name"] for j in self._api.get(f"/apis/batch/v1/namespaces/{self.key.namespace}/jobs")["items"]}
        for state in (*self.seen().jobs.values(),):
            if state.name not in there:
                gone = {"metadata": {"namespace": self.key.namespace, "name": state.name, "uid": state.uid}}
                self._cache.remove("Job", gone)

    def put(self, document: dict[str, Any]) -> None:
        self._api.post(paths.collection(document["apiVersion"], document["kind"], self.key.namespace), document)

    def has(self, ref: ObjectRef) -> bool:
        return self._is_there(paths.item(ref))

    def take_away(self, ref: ObjectRef) -> None:
        if self.has(ref):
            self._api.delete(paths.item(ref), {"propagationPolicy": "Background"})

    def _is_there(self, path: str) -> bool:
        try:
            self._api.get(path)
        except ApiError as error:
            assert error.status == 404, error
            return False
        return True

    def close(self) -> None:
        self._api.delete(f"/api/v1/namespaces/{self.key.namespace}", {"propagationPolicy": "Background"})

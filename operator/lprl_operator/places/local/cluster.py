"""The Cluster Protocol on one machine: the same rendered objects, executed as processes and folders.

The state folder is the API server: job.json is the job with its status, objects/ its children, pods/ what ran. One process
owns it at a time (`lock`). When that process dies, however it dies, its containers die with it; the next one finds the pods
ended like those of a node that was shut down, and the state machine goes on from the persisted status.
"""

import fcntl
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from lprl_api.errors import UserError
from lprl_api.names import CONTROL_KEY, KIND, LABEL_ATTEMPT, LABEL_JOB, PROGRESS_KEY
from lprl_operator.decide.actions import Action, AddOwner, Apply, Create, Delete, DeleteOwned, Event, HandOver, RemoveOwner, ref_of
from lprl_operator.decide.observed import Key, ObjectRef, Observed, Refusal
from lprl_operator.places import handover
from lprl_operator.places.cluster import Conflict
from lprl_operator.places.local.files import read_json, write_json
from lprl_operator.places.local.folders import Folders
from lprl_operator.places.local.jobs import JobController, job_state
from lprl_operator.places.local.pods import LocalPod, PodOrder
from lprl_operator.places.local.process import kill_marked
from lprl_operator.places.local.rayclusters import RayClusterController, cluster_state, pod_state
from lprl_operator.places.local.store import ObjectStore, controller_uid, owner_uids
from lprl_operator.resources import naming


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class LocalCluster:
    """Executes one job's objects on this machine. Use from the main thread, as a context manager."""

    def __init__(self, folders: Folders) -> None:
        self.folders = folders
        self._store = ObjectStore(folders)
        self._pods: list[LocalPod] = []
        self._jobs = JobController(self._store, self._start)
        self._clusters = RayClusterController(self._store, folders, self._start)
        self._refusals: dict[ObjectRef, Refusal] = {}
        self._lock: TextIO | None = None

    def __enter__(self) -> "LocalCluster":
        """Take the state folder, end what an earlier process left running, and load what it recorded."""
        self.folders.state.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.folders.state / "lock")
        kill_marked(f"{self.folders.state_id}:")
        self._pods = LocalPod.load_all(self.folders)
        for pod in self._pods:
            pod.lose()
        return self

    def __exit__(self, *_: object) -> None:
        """End every container, then let the state folder go."""
        for pod in self._pods:
            for container in (*pod.init, *pod.main):
                container.terminate()
        kill_marked(f"{self.folders.state_id}:")
        for pod in self._pods:
            pod.lose()
        for document in self._store.list("RayCluster"):
            self._clusters.release(document)
        if self._lock is not None:
            self._lock.close()

    def submit(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Create the job, or replace the spec of the one that is here; returns the stored document."""
        stored = read_json(self.folders.job)
        meta = dict(document["metadata"])
        meta.setdefault("namespace", "default")
        if stored is None:
            meta |= {"uid": uuid.uuid4().hex[:12], "generation": 1, "resourceVersion": "1", "creationTimestamp": _now()}
            stored = {**document, "metadata": meta}
            stored.pop("status", None)
        elif stored["spec"] != document["spec"]:
            old = stored["metadata"]
            generation, version = old["generation"] + 1, str(int(old["resourceVersion"]) + 1)
            stored = {**stored, "spec": document["spec"], "metadata": {**old, "generation": generation, "resourceVersion": version}}
        write_json(self.folders.job, stored)
        return dict(stored)

    def document(self) -> dict[str, Any] | None:
        """Return the job's document with its status, None when it was deleted."""
        found: dict[str, Any] | None = read_json(self.folders.job)
        return found

    def step(self) -> None:
        """Do what the Job controller, KubeRay and the kubelet would have done by now."""
        self._collect_orphans()
        for job in self._store.list("Job"):
            mine = self._owned("Job", job)
            self._jobs.step(job, mine)
            if "deletionTimestamp" in job["metadata"] and all(pod.ended for pod in mine):
                for pod in mine:
                    pod.forget()
                self._store.remove("Job", job["metadata"]["name"])
        for cluster in self._store.list("RayCluster"):
            self._clusters.step(cluster, self._owned("RayCluster", cluster))
        self._pods = [pod for pod in self._pods if (pod.folder / "pod.json").exists()]

    def observe(self, key: Key) -> Observed:
        """Return the children as decisions see them."""
        jobs = {j["metadata"]["name"]: job_state(j, self._owned("Job", j)) for j in self._store.list("Job")}
        inspect = jobs.pop(naming.inspect_job(key.name), None)
        clusters, pods = [], []
        for document in self._store.list("RayCluster"):
            mine = self._owned("RayCluster", document)
            state = cluster_state(document, mine, self._clusters.is_ready)
            clusters.append(state)
            pods += [pod_state(p, state.attempt, self._clusters.is_ready) for p in mine]
        attempt, progress, control = self._progress(key)
        refusals = tuple(self._refusals.values())
        return Observed(inspect, jobs, tuple(clusters), tuple(pods), progress, control, refusals=refusals, progress_attempt=attempt)

    def live_read(self, key: Key) -> tuple[Mapping[str, Any] | None, Observed]:
        """Read the job and its children; there is no cache here that could be stale."""
        return self.document(), self.observe(key)

    def publish(self, key: Key, status: Mapping[str, Any], resource_version: str | None, events: Sequence[Event]) -> None:
        """Replace the status, then append events and a phase change to events.jsonl."""
        document = self.document()
        if document is None or (resource_version is not None and document["metadata"]["resourceVersion"] != resource_version):
            raise Conflict(f"job {key.name} changed since it was read")
        before = document.get("status", {}).get("phase")
        meta = {**document["metadata"], "resourceVersion": str(int(document["metadata"]["resourceVersion"]) + 1)}
        write_json(self.folders.job, {**document, "metadata": meta, "status": dict(status)})
        write_json(self.folders.status, status)
        stamp = {"time": _now(), "attempt": status.get("attempt", 0)}
        lines = [{**stamp, "type": e.type, "reason": e.reason, "message": e.message} for e in events]
        if status.get("phase") != before:
            lines.insert(0, {**stamp, "phase": status.get("phase"), "message": status.get("message", "")})
        with self.folders.events.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)

    def apply(self, actions: Sequence[Action]) -> None:
        """Execute actions in order."""
        for action in actions:
            if isinstance(action, Create):
                if not self._create(action.document):
                    return
            elif isinstance(action, Apply):
                self._store.apply_config_map(action.document)
            elif isinstance(action, Delete):
                self._delete(action)
            elif isinstance(action, DeleteOwned):
                found = self._store.get(action.ref.kind, action.ref.name)
                if found is not None and controller_uid(found) == action.owner_uid:
                    self._delete(Delete(action.ref, found["metadata"]["uid"]))
            elif isinstance(action, HandOver):
                self._hand_over(action)
            else:
                self._change_owners(action)

    def _hand_over(self, action: HandOver) -> None:
        found = self._store.get(action.ref.kind, action.ref.name)
        try:
            self._store.replace(handover.patched(found or {}, handover.patch(action)))
        except handover.TestFailedError as error:
            raise Conflict(f"{action.ref} changed since it was read: {error}") from error

    def _create(self, document: Mapping[str, Any]) -> bool:
        ref = ref_of(document)
        if self._store.create(document):
            self._refusals.pop(ref, None)
            return True
        self._refusals[ref] = Refusal(ref, f"{ref} exists already, controlled by an earlier job of this name", permanent=False)
        return False

    def _delete(self, action: Delete) -> None:
        ref = action.ref
        if ref.kind == KIND:
            self._delete_job(action.uid)
            return
        if self._store.checked(ref.kind, ref.name, action.uid, action.resource_version) is None:
            return
        found = self._store.get(ref.kind, ref.name)
        if found is not None and ref.kind in ("Job", "RayCluster"):
            if "deletionTimestamp" not in found["metadata"]:
                found["metadata"]["deletionTimestamp"] = _now()
                self._store.replace(found)
        else:
            self._store.remove(ref.kind, ref.name)

    def _delete_job(self, uid: str) -> None:
        """Delete the job and, as garbage collection would, what it alone owns."""
        job = self.document()
        if job is None or job["metadata"]["uid"] != uid:
            return
        self.folders.job.unlink()
        for kind in ("ConfigMap", "Job", "RayCluster", "NetworkPolicy", "ServiceAccount", "Role", "RoleBinding"):
            for document in self._store.list(kind):
                if owner_uids(document) == {job["metadata"]["uid"]}:
                    self._delete(Delete(ref_of(document), document["metadata"]["uid"]))

    def _collect_orphans(self) -> None:
        """What garbage collection does with a finalise Job whose conversion is gone."""
        jobs = self._store.list("Job")
        there = {job["metadata"]["uid"] for job in jobs}
        for job in jobs:
            owners = job["metadata"].get("ownerReferences", ())
            if owners and all(o["kind"] == "Job" and o["uid"] not in there for o in owners):
                self._delete(Delete(ref_of(job), job["metadata"]["uid"]))

    def _change_owners(self, action: AddOwner | RemoveOwner) -> None:
        version = action.resource_version if isinstance(action, RemoveOwner) else None
        found = self._store.checked(action.ref.kind, action.ref.name, action.uid, version)
        if found is None:
            raise Conflict(f"{action.ref} is gone")
        owners = list(found["metadata"].get("ownerReferences", ()))
        if isinstance(action, AddOwner):
            owners += [dict(action.owner)] if action.owner["uid"] not in {o["uid"] for o in owners} else []
        else:
            owners = [o for o in owners if o["uid"] != action.owner_uid]
        found["metadata"]["ownerReferences"] = owners
        self._store.replace(found)

    def _start(self, order: PodOrder) -> LocalPod:
        pod = LocalPod.create(order, self.folders)
        self._pods.append(pod)
        return pod

    def _owned(self, kind: str, document: Mapping[str, Any]) -> list[LocalPod]:
        owner = f"{kind}/{document['metadata']['uid']}"
        return [pod for pod in self._pods if pod.record["owner"] == owner]

    def _progress(self, key: Key) -> tuple[int | None, str | None, str | None]:
        """Return attempt and both keys of the newest attempt's progress ConfigMap."""
        newest: tuple[int, str] | None = None
        for config_map in self._store.list("ConfigMap"):
            labels, name = config_map["metadata"].get("labels", {}), config_map["metadata"]["name"]
            if labels.get(LABEL_JOB) == key.name and name.endswith("-progress") and LABEL_ATTEMPT in labels:
                newest = max(newest or (-1, ""), (int(labels[LABEL_ATTEMPT]), name))
        if newest is None:
            return None, None, None
        return newest[0], self._store.value(newest[1], PROGRESS_KEY), self._store.value(newest[1], CONTROL_KEY)


def _lock(path: Path) -> TextIO:
    """Hold an exclusive lock on the state folder; the kernel releases it when this process ends."""
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        raise UserError(f"{path.parent} is in use by process {holder}", "wait for it, or give this run another --state-dir") from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file

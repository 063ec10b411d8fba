"""What the watches told us, reduced to what decisions read. Thread-safe: kopf's loop and the workers write, workers read.

Invariants: an entry is never replaced by an older version of the same object, nor by one that is gone; `put` answers which jobs to
look at again and whether at once, and nothing when the object says nothing new to a decision (owners of a shared conversion come and
go a thousand times).
"""

import json
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lprl_api import names
from lprl_operator.decide.observed import ClusterState, JobState, Key, Observed, PodState
from lprl_operator.places.kube import owners, reduce
from lprl_operator.places.kube.conversions import Conversions
from lprl_operator.places.kube.entries import identity, is_converted, name_of, reduced
from lprl_operator.places.kube.reduce import JobPod, ProgressMap
from lprl_operator.places.kube.refused import QueueWords, RefusedPods
from lprl_operator.places.kube.shelf import Change, Entry, Name, Shelf
from lprl_operator.places.kube.summary import Summary
from lprl_operator.resources import naming

Document = Mapping[str, Any]
CROWD = 100
ENDED = ("Succeeded", "Failed")
DETAILS_S = 45.0
"""Worker pods are listed now and then while a cluster is not ready; a list older than this is not shown."""


@dataclass(frozen=True, slots=True)
class Details:
    """Pods of a job's clusters, workers included, as listed at a time."""

    pods: tuple[PodState, ...]
    at: datetime


class Cache:
    """All kinds. `put` and `remove` take API documents and return the jobs to look at again."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._shelves = {kind: Shelf() for kind in (names.KIND, "Job", "JobPod", "RayCluster", "Pod", "ConfigMap")}
        self._pods_of_job: dict[str, set[Name]] = {}
        self._shared: dict[str, set[str]] = {}
        self.refused_pods, self.queue_words = RefusedPods(), QueueWords()
        self._details: dict[Key, Details] = {}
        self._departed: dict[Key, dict[str, PodState]] = {}
        self._starting, self._unfinished, self._counted_at = 0, 0, 0.0

    def put(self, kind: str, document: Document) -> Change:
        """Store what was watched, read or written."""
        name, uid, version = identity(document)
        with self._lock:
            if kind == "Pod" and reduce.label(document, reduce.JOB_NAME):
                return self._put_job_pod(document)
            if self._shelves[kind].is_outdated(name, uid, version):
                return Change()
            if kind == names.KIND and self._shelves[kind].has(name, uid, version):
                return Change()  # the echo of our own status write
            value, tells, turns, keys = reduced(kind, document)
            if value is None:
                return Change()
            if kind == "Job" and reduce.label(document, names.LABEL_CONTENT_KEY):
                self._shared.setdefault(name.namespace, set()).add(name.name)
            if kind == "Job":
                keys |= self._keys_through_owner(name.namespace, owners.owning_batch_job(document))
            found = self._shelves[kind].put(name, Entry(uid, version, keys, value, tells, turns))
            return self._for_one(found) if kind == "Job" and is_converted(value) else found

    def remove(self, kind: str, document: Document) -> Change:
        """Forget an object that was deleted, which nobody is to wait for hearing of."""
        with self._lock:
            gone = self._removed(kind, document)
        return Change(gone, gone)

    def _removed(self, kind: str, document: Document) -> frozenset[Key]:
        name, uid, version = identity(document)
        if kind == "Pod" and reduce.label(document, reduce.JOB_NAME):
            entry = self._shelves["JobPod"].entries.get(name)
            if entry is not None:
                pods = self._pods_of_job.get(entry.value.job_uid, set())
                pods.discard(name)
                if not pods:
                    self._pods_of_job.pop(entry.value.job_uid, None)
            return self._shelves["JobPod"].remove(name, uid, version)
        if kind == "Pod":
            self._note_departed(owners.owning_jobs(document), reduce.pod_state(document))
        gone = self._shelves[kind].remove(name, uid, version)
        if kind == "Job" and name not in self._shelves[kind].entries:
            self._shared.get(name.namespace, set()).discard(name.name)
        return gone

    def document(self, key: Key, word: bytes = b"") -> Document | None:
        """The job's document; None also where its text does not hold `word`, which is sooner looked at than the document made."""
        with self._lock:
            entry = self._shelves[names.KIND].entries.get(Name(*key))
        return json.loads(entry.value.text) if entry is not None and word in entry.value.text else None

    def uid(self, key: Key) -> str:
        """The job's uid, empty when it is not known."""
        with self._lock:
            entry = self._shelves[names.KIND].entries.get(Name(*key))
        return entry.uid if entry is not None else ""

    def keys(self) -> tuple[Key, ...]:
        """Every job."""
        with self._lock:
            return tuple(Key(*name) for name in self._shelves[names.KIND].entries)

    def summaries(self) -> list[tuple[Key, Summary]]:
        """Every job with what metrics say of it."""
        with self._lock:
            return [(Key(*name), entry.value.summary) for name, entry in self._shelves[names.KIND].entries.items()]

    def forget(self, key: Key, uid: str) -> None:
        """Drop a job of this uid that is gone (another may have come under its name by now), and what was listed of its children."""
        with self._lock:
            if uid:
                self._shelves[names.KIND].remove(Name(*key), uid)
            self._details.pop(key, None)
            self._departed.pop(key, None)

    def owned_uid(self, kind: str, name: Name) -> tuple[str, frozenset[str]] | None:
        """Uid and owners of a cached Job; None when it is not cached."""
        with self._lock:
            entry = self._shelves[kind].entries.get(name)
        return (entry.uid, getattr(entry.value, "owner_uids", frozenset())) if entry is not None else None

    def progress_uid(self, name: Name) -> str | None:
        """Uid of a progress ConfigMap."""
        with self._lock:
            entry = self._shelves["ConfigMap"].entries.get(name)
        return entry.uid if entry is not None else None

    def clusters(self, key: Key) -> tuple[ClusterState, ...]:
        """RayClusters of a job."""
        with self._lock:
            return tuple(e.value for e in self._shelves["RayCluster"].of(key))

    def starting(self) -> int:
        """Number of RayClusters that wait for pods: how much goes on."""
        with self._lock:
            self._count()
            return self._starting

    def unfinished(self) -> int:
        """Number of jobs that have not ended."""
        with self._lock:
            self._count()
            return self._unfinished

    def is_starting(self, key: Key) -> bool:
        """Whether a RayCluster of the job waits for pods."""
        with self._lock:
            return any(not e.value.settled for e in self._shelves["RayCluster"].of(key))

    def _count(self) -> None:
        """Count once a second: asked for at every event."""
        if time.monotonic() - self._counted_at >= 1.0:
            jobs, clusters = self._shelves[names.KIND].entries, self._shelves["RayCluster"].entries.values()
            # One whose job is gone is on its way out, or gone and no watch told of it: nobody waits for it.
            self._starting = sum(not e.value.settled and any(Name(*key) in jobs for key in e.keys) for e in clusters)
            self._unfinished = sum(e.value.summary.phase not in ENDED for e in jobs.values())
            self._counted_at = time.monotonic()

    def paced(self, seconds: float) -> float:
        """Stretch an interval when more than CROWD clusters start: a thousand that wait for room must not be a thousand lists each time."""
        return seconds * max(1.0, self.starting() / CROWD)

    def heads(self, key: Key) -> tuple[PodState, ...]:
        """Watched (head) pods of a job's clusters."""
        with self._lock:
            return tuple(e.value for e in self._shelves["Pod"].of(key))

    def details(self, key: Key) -> Details | None:
        """The newest list of all pods of a job's clusters."""
        with self._lock:
            return self._details.get(key)

    def replace_live(self, key: Key, clusters: Iterable[Document], pods: Iterable[Document], details: Details) -> None:
        """Take over what a live read found of a job: objects it did not find are gone, whatever the watches missed."""
        with self._lock:
            for kind, documents in (
                ("RayCluster", list(clusters)),
                ("Pod", [p for p in pods if reduce.label(p, reduce.HEAD_TYPE) == "head"]),
            ):
                for document in documents:
                    self.put(kind, document)
                there = {name_of(d) for d in documents}
                shelf = self._shelves[kind]
                for name in [n for n in shelf.by_job.get(key, set()) if n not in there]:
                    if kind == "Pod":
                        self._note_departed(frozenset({key}), shelf.entries[name].value)
                    shelf.remove(name)
            self._details[key] = details

    def conversion(self, name: Name) -> JobState | None:
        """A convert or finalise Job with what its pods say."""
        with self._lock:
            entry = self._shelves["Job"].entries.get(name)
            return self._with_pods(entry.value) if entry is not None else None

    def jobs_of(self, key: Key) -> tuple[JobState, ...]:
        """The inspect Job of a job, and the convert and finalise Jobs of conversions it owns."""
        with self._lock:
            mine = {name.name for name in self._shelves["Job"].by_job.get(key, ())}
            mine |= {naming.finalise_job(name) for name in mine}
            found = (self.conversion(Name(key.namespace, name)) for name in sorted(mine))
            return tuple(job for job in found if job is not None)

    def conversions(self, namespace: str) -> tuple[str, ...]:
        """Names of every convert and finalise Job of a namespace."""
        with self._lock:
            return tuple(sorted(self._shared.get(namespace, ())))

    def progress(self, key: Key, uid: str) -> ProgressMap | None:
        """The newest attempt's progress ConfigMap that this very job owns."""
        with self._lock:
            shelf = self._shelves["ConfigMap"]
            found = {name: shelf.entries[name].value for name in shelf.by_job.get(key, ())}
        mine = [p for name, p in found.items() if p.owner_uid == uid and name.name == naming.progress(key.name, p.attempt)]
        return max(mine, key=lambda p: p.attempt, default=None)

    def observed(self, key: Key, uid: str, now: datetime) -> Observed:
        """A job's children as cached."""
        clusters = tuple(map(self.queue_words.told, self.clusters(key)))
        progress = self.progress(key, uid)
        pods = {p.uid: p for p in self._recent(key, clusters, now)} | {p.uid: p for p in self.heads(key)}
        inspect = self.conversion(Name(key.namespace, naming.inspect_job(key.name)))
        said = (progress.progress, progress.control) if progress is not None else (None, None)
        attempt = progress.attempt if progress is not None else None
        with self._lock:
            departed = dict(self._departed.get(key, {}))
        shared = Conversions(lambda name: self.conversion(Name(key.namespace, name)), lambda: self.conversions(key.namespace))
        return Observed(inspect, shared, clusters, tuple(pods.values()), *said, progress_attempt=attempt, departed=departed)

    def _note_departed(self, keys: frozenset[Key], pod: PodState | None) -> None:
        """Remember how a head ended: KubeRay deletes one whose Ray ended, and an evicted one is gone, before anybody looked."""
        if pod is None or pod.role != "head":
            return
        ended = any(c is not None and c.state == "terminated" for c in (pod.ray, pod.driver))
        if ended or pod.disruption:
            for key in (k for k in keys if Name(*k) in self._shelves[names.KIND].entries):
                self._departed[key] = {pod.cluster_uid: pod}

    def _recent(self, key: Key, clusters: tuple[ClusterState, ...], now: datetime) -> Iterable[PodState]:
        """Worker pods worth showing: a recent list, while it is not all well."""
        details = self.details(key)
        if details is None or (now - details.at).total_seconds() > self.paced(DETAILS_S):
            return ()
        well = {c.attempt for c in clusters if c.head_ready and c.ready_workers >= c.wanted_workers}
        return [p for p in details.pods if p.role == "worker" and p.attempt not in well]

    def _for_one(self, found: Change) -> Change:
        """All shards of a shared conversion are done: one of those who want it is enough to have it published."""
        jobs = self._shelves[names.KIND].entries
        wanting = [key for key in found.urgent if Name(*key) in jobs and jobs[Name(*key)].value.summary.phase not in ENDED]
        return Change(found.keys, frozenset(sorted(wanting)[:1]) or found.urgent)

    def _keys_through_owner(self, namespace: str, batch_job: str) -> frozenset[Key]:
        """Jobs that own the batch Job that owns an object: of a finalise Job, those that want the conversion by now."""
        owner = self._shelves["Job"].entries.get(Name(namespace, batch_job)) if batch_job else None
        return owner.keys if owner is not None else frozenset()

    def _with_pods(self, job: JobState) -> JobState:
        entries = self._shelves["JobPod"].entries
        pods = [entries[n].value for n in self._pods_of_job.get(job.uid, ()) if n in entries]
        return reduce.with_pods(self.queue_words.told_job(job), pods, self.refused_pods.of(job.uid))

    def _put_job_pod(self, document: Document) -> Change:
        pod: JobPod = reduce.job_pod(document)
        name, uid, version = identity(document)
        if self._shelves["JobPod"].is_outdated(name, uid, version):
            return Change()
        owner = self._shelves["Job"].entries.get(Name(name.namespace, pod.job_name))
        self._pods_of_job.setdefault(pod.job_uid, set()).add(name)
        keys = owners.owning_jobs(document)
        if owner is not None:
            keys = owner.keys | self._keys_through_owner(name.namespace, owner.value.owner_job)
        tells = (pod.exit, pod.scheduling, pod.image_pull, pod.stuck)
        # Its Job's end is what counts; the rest is told in turn.
        return self._shelves["JobPod"].put(name, Entry(uid, version, keys, pod, tells, ()))

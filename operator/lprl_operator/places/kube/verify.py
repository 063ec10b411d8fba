"""Whether Jobs that the cache knows are there.

kopf lists anew after a gap in its watch and tells of what is there then, never of what went: an object whose end fell into the gap
would be waited for until the operator starts again. RayClusters, pods and progress are read live before anything is done and at
each resync; of Jobs, those that are waited for and say nothing are read here, and those about which a request was refused.
"""

import itertools
import logging
import threading
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from lprl_operator.decide.observed import JobState, Key, ObjectRef
from lprl_operator.kube import paths
from lprl_operator.kube.api import KubeApi
from lprl_operator.places.kube import reduce
from lprl_operator.places.kube.cache import Cache
from lprl_operator.places.kube.podless import is_podless
from lprl_operator.places.kube.shelf import Name
from lprl_operator.resources import naming

log = logging.getLogger(__name__)
QUIET_S, WORKING_S = 15.0, 180.0
"""Without a word from a Job, until it is read: of one that should have a pod or be gone, and of others."""
READS_PER_S = 2.0
"""At most, over all Jobs that are waited for: with more of them each is read that much seldomer."""
INSPECT = naming.inspect_job("")


class Verified:
    """Thread-safe."""

    def __init__(self, api: KubeApi, cache: Cache) -> None:
        self._api, self._cache = api, cache
        self._lock = threading.Lock()
        self._heard: dict[Name, tuple[str, datetime]] = {}
        """What each Job said last (its uid and version), and when that was noted or confirmed."""
        self._swept: dict[str, datetime] = {}
        """When the conversions of a namespace were gone through."""

    def look(self, key: Key, now: datetime) -> None:
        """Read what a job may wait for and nobody heard of for a while: its inspect Job, and its namespace's conversions."""
        jobs = (*self._inspection(key), *self._conversions(key.namespace, now))
        due = (job for job in jobs if self._is_due(Name(key.namespace, job.name), job, now))
        for job in itertools.islice(due, int(QUIET_S * READS_PER_S)):
            self.read(ObjectRef("batch/v1", "Job", key.namespace, job.name), job.uid)

    def doubt(self, ref: ObjectRef, uid: str, version: str | None = None) -> None:
        """Read a Job about which a request was refused, unless something newer is known than what was asked for by then.

        A thousand jobs that leave one conversion at the same time refuse each other all the time: each knows the other's answer.
        """
        known = self._cache.conversion(Name(ref.namespace, ref.name)) if ref.kind == "Job" else None
        if known is not None and known.uid == uid and version in (None, known.resource_version):
            self.read(ref, uid)

    def read(self, ref: ObjectRef, uid: str) -> None:
        """Have the cache know what bears a Job's name now; `uid`: of the one that was expected to."""
        path = paths.collection(ref.api_version, ref.kind, ref.namespace)
        # A list of one is as fresh as a get and costs the API server half: see Reader.job.
        found = self._api.get(path, fieldSelector=f"metadata.name={ref.name}").get("items") or ()
        if not any(reduce.meta(d).get("uid") == uid for d in found):
            if (known := self._cache.owned_uid(ref.kind, Name(ref.namespace, ref.name))) is not None and known[0] == uid:
                log.warning("%s is gone, and no watch told of it", ref, extra={"namespace": ref.namespace, "object": ref.name, "uid": uid})
            gone: dict[str, Any] = {"metadata": {"namespace": ref.namespace, "name": ref.name, "uid": uid}}
            self._cache.remove(ref.kind, gone)
        for document in found:
            self._cache.put(ref.kind, document)

    def forget(self, key: Key) -> None:
        """Drop what is known of a job that is gone."""
        with self._lock:
            self._heard.pop(Name(key.namespace, naming.inspect_job(key.name)), None)

    def _inspection(self, key: Key) -> Iterable[JobState]:
        """The inspect Job, while it is waited for: for its end, or an earlier one's to be gone."""
        job = self._cache.conversion(Name(key.namespace, naming.inspect_job(key.name)))
        over = job is None or (job.finished and not job.deleting and self._cache.uid(key) in job.owner_uids)
        if over:
            self.forget(key)
        return () if job is None or over else (job,)

    def _conversions(self, namespace: str, now: datetime) -> list[JobState]:
        """Those of a namespace that may be waited for: gone through once for all jobs of it."""
        with self._lock:
            swept = self._swept.get(namespace)
            if swept is not None and (now - swept).total_seconds() < QUIET_S:
                return []
            self._swept[namespace] = now
        there = {name: job for name in self._cache.conversions(namespace) if (job := self._cache.conversion(Name(namespace, name)))}
        waited = {name: job for name, job in there.items() if _is_waited_for(job, there)}
        with self._lock:
            for name in [n for n in self._heard if n.namespace == namespace and n.name not in waited and not n.name.endswith(INSPECT)]:
                del self._heard[name]
        return list(waited.values())

    def _is_due(self, name: Name, job: JobState, now: datetime) -> bool:
        said = f"{job.uid} {job.resource_version}"
        with self._lock:
            before, at = self._heard.get(name, ("", now))
            pause_s = QUIET_S if is_podless(job) or job.deleting else WORKING_S
            due = before == said and (now - at).total_seconds() >= max(pause_s, len(self._heard) / READS_PER_S)
            if due or before != said:
                self._heard[name] = (said, now)
            return due


def _is_waited_for(job: JobState, there: dict[str, JobState]) -> bool:
    """Whether somebody may wait for a convert or finalise Job: to get on, to be followed by the next one, or to be gone."""
    final = there.get(naming.finalise_job(job.name))
    followed = naming.is_finalise_job(job.name) or (final is not None and bool(final.finished))
    return not job.finished or job.deleting or job.foreign or (job.finished == "Complete" and not followed)

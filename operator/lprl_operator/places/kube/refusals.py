"""Writes that were refused, by job: told until the object is made or deleted, another takes its place, or nobody tries any more."""

import threading
from collections.abc import Iterable
from datetime import datetime

from lprl_operator.decide.observed import Key, ObjectRef, Refusal

TRIED_AGAIN_S = 600.0
"""A job whose write was refused is looked at every 30 s and tries again: one that did not for so long has moved on."""


class Refusals:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_job: dict[Key, dict[ObjectRef, tuple[Refusal, datetime]]] = {}

    def add(self, keys: Iterable[Key], refusal: Refusal, now: datetime) -> None:
        """Note a refused write of these jobs."""
        with self._lock:
            for key in keys:
                self._by_job.setdefault(key, {})[refusal.ref] = refusal, now

    def accepted(self, keys: Iterable[Key], ref: ObjectRef) -> None:
        """Drop what was refused of an object that is there now; a RayCluster takes the place of every other of its job."""
        with self._lock:
            for key in keys:
                kept = {r: at for r, at in self._by_job.pop(key, {}).items() if r != ref and not r.kind == ref.kind == "RayCluster"}
                self._by_job |= {key: kept} if kept else {}

    def deleted(self, ref: ObjectRef) -> None:
        """Drop what was refused of an object that goes."""
        with self._lock:
            for refused in self._by_job.values():
                refused.pop(ref, None)

    def of(self, key: Key, now: datetime) -> tuple[Refusal, ...]:
        """Return what is refused of a job."""
        with self._lock:
            found = self._by_job.get(key, {}).items()
            kept = {ref: told for ref, told in found if (now - told[1]).total_seconds() < TRIED_AGAIN_S}
            if kept:
                self._by_job[key] = kept
            else:
                self._by_job.pop(key, None)
            return tuple(refusal for refusal, _ in kept.values())

    def forget(self, key: Key) -> None:
        """Drop a job that is gone."""
        with self._lock:
            self._by_job.pop(key, None)

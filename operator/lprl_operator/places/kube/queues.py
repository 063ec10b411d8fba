"""What a queue says of what it holds: Kueue writes it into a Workload, which the object it is of controls.

Workloads are not watched: those of a namespace are listed, once for all of its jobs, while one of them is held.
"""

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from lprl_api.names import Reason
from lprl_api.text import one_line, shortened
from lprl_operator.decide.observed import Key
from lprl_operator.kube import paths
from lprl_operator.kube.api import ApiError, KubeApi, Unavailable
from lprl_operator.places.kube import reduce
from lprl_operator.places.kube.cache import Cache
from lprl_operator.places.kube.owners import controller_uid
from lprl_operator.places.kube.refused import Said
from lprl_operator.places.kube.waits import Waits

EVICTED, RESERVED = str(Reason.EVICTED), "QuotaReserved"
"""Types of a Workload's conditions: Kueue and we have the same word for the first."""
WORKLOAD = ("kueue.x-k8s.io/v1beta2", "Workload")
PRIORITY_CLASS = "WorkloadPriorityClass"
GROUP = "/apis/kueue.x-k8s.io"
PERIOD_S, SOONEST_S = 15.0, 3.0
"""Between two lists of a namespace: while what is held is what it was at the last one, and when something else is."""
WORKLOADS_A_PERIOD = 500
"""With more Workloads than this the lists are that much seldomer."""
ABSENT_S = 300.0
"""Until it is asked again whether there is a Kueue, and whether its Workloads may be read."""


class Queues:
    """Thread-safe."""

    def __init__(self, api: KubeApi, cache: Cache) -> None:
        self._api, self._cache = api, cache
        self._lock, self.waits = threading.Lock(), Waits()
        self._listed: dict[str, tuple[datetime, float, set[str]]] = {}
        """By namespace: when, the seconds until the next, and what was held by then."""
        self._absent_until: datetime | None = None
        self._asked_until: datetime | None = None

    def look(self, key: Key, now: datetime) -> None:
        """Have the cache know what the queue says of what it holds of a job."""
        clusters = self._cache.clusters(key)
        # Between attempts a RayCluster is suspended for a moment though its quota stays: that is told by spec.suspend alone.
        waits = {("RayCluster", c.uid): c.told_to_suspend for c in clusters if c.queued}
        self.waits.look(key, waits | {("Job", j.uid): j.suspended for j in self._cache.jobs_of(key)}, now)
        mine = {c.uid: c.suspended and not c.held for c in clusters} | {j.uid: j.suspended for j in self._cache.jobs_of(key)}
        held = {uid for uid, suspended in mine.items() if suspended}
        self._forget(key.namespace, mine.keys() - held)
        if held or any(c.queued for c in clusters):
            self._find_out(now)
        if not held or self._cache.queue_words.absent or not self._is_due(key.namespace, held, now):
            return
        try:
            found = self._api.get(paths.collection(*WORKLOAD, key.namespace)).get("items") or ()
        except Unavailable:
            raise
        except ApiError as error:
            if error.status not in (403, 404):
                raise
            with self._lock:
                self._absent_until = now + timedelta(seconds=ABSENT_S)
            return
        told = words(found)
        with self._lock:  # a list tells of what every job of the namespace has held, not of this one's alone
            self._listed[key.namespace] = (now, PERIOD_S * max(1.0, len(found) / WORKLOADS_A_PERIOD), held | told.keys())
        self._cache.queue_words.replace(key.namespace, told)

    def _find_out(self, now: datetime) -> None:
        """Ask whether there is a Kueue: who may not read Workloads is refused either way, but what kinds there are is told to everybody."""
        with self._lock:
            if self._asked_until is not None and now < self._asked_until:
                return
            self._asked_until = now + timedelta(seconds=ABSENT_S)
        try:
            self._api.get(GROUP)
        except Unavailable:
            raise
        except ApiError as error:
            self._cache.queue_words.absent = error.status == 404
        else:
            self._cache.queue_words.absent = False

    def _forget(self, namespace: str, free: set[str]) -> None:
        """What was let go and is held again has something new to say."""
        with self._lock:
            if namespace in self._listed:
                self._listed[namespace][2].difference_update(free)

    def _is_due(self, namespace: str, held: set[str], now: datetime) -> bool:
        with self._lock:
            if self._absent_until is not None and now < self._absent_until:
                return False
            at, period_s, known = self._listed.get(namespace, (None, PERIOD_S, set()))
            age_s = (now - at).total_seconds() if at is not None else None
            if age_s is not None and age_s < (period_s if held <= known else SOONEST_S):
                return False
            self._listed[namespace] = (now, period_s, known | held)
            return True


def words(workloads: Sequence[Mapping[str, Any]]) -> dict[str, Said]:
    """Return what is said, by the uid of what it is said of. Any Workload tells what its class is worth; nobody asks for the class."""
    ranks: dict[str, int] = {}
    found: dict[str, Said] = {}
    for workload in workloads:
        spec = workload.get("spec") or {}
        rank, named = spec.get("priority"), spec.get("priorityClassRef") or {}
        if isinstance(rank, int) and named.get("kind") == PRIORITY_CLASS:
            ranks[str(named.get("name"))] = rank
        if (uid := controller_uid(workload)) and (text := said(workload)):
            found[uid] = Said(text, rank if isinstance(rank, int) else None, ranks)
    return found


def said(workload: Mapping[str, Any]) -> str:
    """Return why a Workload is not running, in Kueue's own words: stopped, thrown out, or not admitted; empty when it is admitted."""
    found = reduce.conditions(workload)
    evicted, reserved = found.get(EVICTED, {}), found.get(RESERVED, {})
    out = _text(evicted) if evicted.get("status") == "True" else ""
    if (workload.get("spec") or {}).get("active") is False:
        return out or "Deactivated: spec.active of its Workload is false"
    waits = _text(reserved) if reserved.get("status") == "False" else ""
    both = [out, waits] if out and waits and str(reserved.get("message")) != str(evicted.get("message")) else [out or waits]
    return shortened("; ".join(filter(None, both)), reduce.MAX_TEXT)


def _text(condition: Mapping[str, Any]) -> str:
    return one_line(": ".join(filter(None, (str(condition.get("reason") or ""), str(condition.get("message") or "")))))

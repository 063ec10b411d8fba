"""What keeps the pods of our Jobs from being made (quota, LimitRange, Pod Security, a webhook): the Job controller tells by an event alone.

A Job without pods is rare, so nothing is watched for it: the events of a namespace are listed, once for all of its Jobs, while one waits.
"""

import threading
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from lprl_operator.decide.observed import JobState, Key
from lprl_operator.kube import paths
from lprl_operator.kube.api import KubeApi
from lprl_operator.places.kube import reduce
from lprl_operator.places.kube.cache import Cache
from lprl_operator.places.kube.refused import NONE, Refusal

PERIOD_S, SOONEST_S = 15.0, 3.0
"""Between two lists of a namespace: while its Jobs are those of the last list, and when another waits."""
EVENTS_A_PERIOD = 500
"""With more events than this the lists are that much seldomer: a thousand Jobs without pods are told of later."""
SELECTOR = "involvedObject.kind=Job,reason=FailedCreate"


class PodlessJobs:
    """Thread-safe."""

    def __init__(self, api: KubeApi, cache: Cache) -> None:
        self._api, self._cache = api, cache
        self._lock = threading.Lock()
        self._listed: dict[str, tuple[datetime, float, set[str]]] = {}
        """By namespace: when, the seconds until the next, and the Jobs whose answer was in it."""

    def look(self, key: Key, now: datetime) -> None:
        """Have the cache know why a job's Jobs have no pods."""
        waiting = {job.uid for job in self._cache.jobs_of(key) if is_podless(job)}
        if not waiting or not self._is_due(key.namespace, waiting, now):
            return
        events = self._api.get(paths.collection("v1", "Event", key.namespace), fieldSelector=SELECTOR).get("items") or ()
        found = newest(events)
        with self._lock:
            period_s = PERIOD_S * max(1.0, len(events) / EVENTS_A_PERIOD)
            self._listed[key.namespace] = (now, period_s, waiting | found.keys())
        self._cache.refused_pods.replace(key.namespace, found)

    def _is_due(self, namespace: str, waiting: set[str], now: datetime) -> bool:
        with self._lock:
            at, period_s, known = self._listed.get(namespace, (None, PERIOD_S, set()))
            age_s = (now - at).total_seconds() if at is not None else None
            if age_s is not None and age_s < (period_s if waiting <= known else SOONEST_S):
                return False
            self._listed[namespace] = (now, period_s, known | waiting)
            return True


def is_podless(job: JobState) -> bool:
    """Whether a Job should have a pod that runs, and has none."""
    return not job.active and not job.finished and not job.suspended and not job.deleting


def newest(events: Iterable[Mapping[str, Any]]) -> dict[str, Refusal]:
    """Return the newest refusal of each Job, by its uid."""
    found: dict[str, Refusal] = {}
    for event in events:
        uid = str((event.get("involvedObject") or {}).get("uid", ""))
        at = str((event.get("series") or {}).get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime") or "")
        text = str(event.get("message", "")).removeprefix("(combined from similar events): ").removeprefix("Error creating: ")
        if uid and at >= found.get(uid, NONE)[0]:
            found[uid] = (at, text[: reduce.MAX_TEXT])
    return found

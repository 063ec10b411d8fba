"""The operator's moving parts in one process: watches fill the cache and the queue, workers of the leader empty it."""

import logging
import threading
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from lprl_api import names
from lprl_operator.controller import reconcile
from lprl_operator.decide.observed import Key
from lprl_operator.kube.api import ApiError, KubeApi, Unavailable
from lprl_operator.leader import Elector
from lprl_operator.logs import about
from lprl_operator.metrics import OperatorMetrics
from lprl_operator.pace import Pace
from lprl_operator.places.cluster import Conflict
from lprl_operator.places.kube.cache import Cache
from lprl_operator.places.kube.cluster import KubeCluster
from lprl_operator.places.kube.eventlog import EventLog
from lprl_operator.settings import Identity, OperatorSettings
from lprl_operator.workqueue import WorkQueue

log = logging.getLogger(__name__)
IDLE_S = 0.5


class Runtime:
    """Wires the parts; `start` and `stop` from the main thread, `saw` from kopf's loop."""

    def __init__(self, settings: OperatorSettings, who: Identity, api: KubeApi, metrics: OperatorMetrics) -> None:
        self.settings, self.metrics, self.who, self.api = settings, metrics, who, api
        self._render = settings.resources.render()
        self._cache = Cache()
        self._events = EventLog(api, who.name)
        self._cluster = KubeCluster(api, self._cache, self._events)
        self._queue: WorkQueue[Key] = WorkQueue()
        self._pace = Pace(self._cache.starting, self._cache.unfinished)
        self._elector = Elector(api, settings.leader_election, who, self._changed)
        self._read_at: dict[Key, float] = {}
        """When a job was last read afresh."""
        self._takes_news = not settings.leader_election.enabled
        """Whether what is seen is queued: a follower only keeps its cache warm, and queues all of it when it leads."""
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._events.tell, self._cluster.queues.waits.tell = metrics.told, metrics.was_held
        metrics.follow_jobs(self._cache.summaries, settings.metrics.per_job)
        metrics.queue_depth.set_function(lambda: self._queue.depth)
        metrics.leader.set_function(lambda: float(self.is_leading()))

    def start(self) -> None:
        """Stand for election and start the workers."""
        self._elector.start()
        for number in range(self.settings.workers):
            thread = threading.Thread(target=self._work, name=f"worker-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Let reconciles in flight finish, then give the Lease back."""
        self._stop.set()
        self._queue.close()
        for thread in self._threads:
            thread.join(self.settings.request_timeout_seconds)
        self._elector.stop()
        self._events.flush()

    def is_leading(self) -> bool:
        """Whether this replica acts."""
        return self._elector.is_leading()

    def jobs(self) -> int:
        """Number of jobs known."""
        return len(self._cache.keys())

    def saw(self, kind: str, change: str | None, document: Mapping[str, Any]) -> None:
        """Take over what a watch told (`change` is ADDED, MODIFIED, DELETED, or None for the first list)."""
        self.metrics.watch_events.labels(kind).inc()
        deleted = change == "DELETED"
        found = self._cache.remove(kind, document) if deleted else self._cache.put(kind, document)
        for key in found.keys:
            if deleted and kind == names.KIND:
                self._forget(key)
            elif self._takes_news:
                self._queue.add(key, self._pace.after_news(key, key in found.urgent, self._cache.is_starting(key)))

    def _forget(self, key: Key) -> None:
        self._cluster.forget(key)
        self._pace.forget(key)
        self._cluster.queues.waits.forget(key)
        self._read_at.pop(key, None)

    def _changed(self, leading: bool) -> None:
        self._takes_news = leading
        if leading:
            self._queue.add_all(self._cache.keys())
        else:
            self._queue.clear()

    def _work(self) -> None:
        while not self._stop.is_set():
            if not self.is_leading():
                self._stop.wait(IDLE_S)
                continue
            found = self._queue.get(IDLE_S)
            if found is None:
                continue
            key, waited_s = found
            self.metrics.queue_wait.observe(waited_s)
            try:
                self._handle(key)
            finally:
                self._queue.done(key)

    def _handle(self, key: Key) -> None:
        with about(namespace=key.namespace, job=key.name):
            self._try(key)

    def _try(self, key: Key) -> None:
        started = time.monotonic()
        try:
            again_s = self.look(key, self.api.clock.now())
        except Unavailable as error:
            delay = self._queue.retry(key, error.retry_after_s or 0.0)
            self.metrics.reconcile_errors.labels("unavailable").inc()
            log.warning("API server not available", extra={"error": str(error)[:300], "retry_s": round(delay, 1)})
        except (ApiError, Conflict) as error:
            delay = self._queue.retry(key)
            status = str(error.status) if isinstance(error, ApiError) else "conflict"
            self.metrics.reconcile_errors.labels(status).inc()
            log.error("request refused", extra={"error": str(error)[:500], "retry_s": round(delay, 1)})
        except Exception:
            # One job that trips a bug must not stop the others; it is retried with back-off and the traceback is in the log.
            self._queue.retry(key)
            self.metrics.reconcile_errors.labels("bug").inc()
            log.exception("reconcile failed")
        else:
            self._queue.succeeded(key)
            if again_s is not None:
                self._queue.add(key, self._pace.by_time(again_s, self._cache.is_starting(key)))
        finally:
            self.metrics.reconcile_seconds.observe(time.monotonic() - started)

    def look(self, key: Key, now: datetime) -> float | None:
        """Reconcile one job; return the seconds until the next look, None when it is gone."""
        document = self._cache.document(key)
        if document is None:
            self._forget(key)
            return None
        if time.monotonic() - self._read_at.setdefault(key, time.monotonic()) >= self.settings.resync_seconds:
            document, _ = self._cluster.live_read(key)
            self._read_at[key] = time.monotonic()
            if document is None:
                self._forget(key)
                return None
        self._pace.looked(key)
        self._cluster.refresh(key, now)
        with about(attempt=(document.get("status") or {}).get("attempt", 0)):
            again_s = reconcile(document, self._cluster, now, self._render, self._pace.is_crowded())
        resync_s = float(self.settings.resync_seconds)
        return resync_s if again_s is None else min(again_s, resync_s)

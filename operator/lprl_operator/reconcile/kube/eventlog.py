"""Kubernetes events of a job, posted in the background: telling must never delay doing."""

import logging
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from lprl_api import names
from lprl_operator.reconcile.actions import Event
from lprl_operator.reconcile.kube import paths, reduce
from lprl_operator.reconcile.kube.api import ApiError, KubeApi

log = logging.getLogger(__name__)
CAPACITY = 10_000
"""Events waiting to be posted; beyond it (an API server away for long, a thousand jobs changing) the newest are dropped and logged."""
PER_SECOND, BURST = 20, 200
"""Events posted: a thousand jobs that start at once are told later than they are served."""
COMPONENT = "lprl-operator"


class EventLog:
    """Posts events from one thread of its own."""

    def __init__(self, api: KubeApi, instance: str) -> None:
        self._api, self._instance = api, instance
        self._waiting: queue.Queue[dict[str, Any]] = queue.Queue(CAPACITY)
        self._hurry = threading.Event()
        threading.Thread(target=self._post, name="events", daemon=True).start()

    def send(self, document: Mapping[str, Any], events: Sequence[Event]) -> None:
        """Queue events on a job; never blocks, never raises."""
        for event in events:
            try:
                self._waiting.put_nowait(self._document(document, event))
            except queue.Full:
                log.warning("event dropped", extra={"reason": event.reason, "job": reduce.meta(document).get("name")})

    def flush(self, seconds: float = 3.0) -> None:
        """Wait a little until everything queued is posted (at shutdown)."""
        self._hurry.set()
        waiter = threading.Thread(target=self._waiting.join, daemon=True)
        waiter.start()
        waiter.join(seconds)

    def _document(self, document: Mapping[str, Any], event: Event) -> dict[str, Any]:
        meta = reduce.meta(document)
        now = datetime.now(UTC)
        stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        about = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
        }
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{meta['name']}.", "namespace": meta["namespace"]},
            "involvedObject": about,
            "type": event.type,
            "reason": event.reason,
            "message": event.message,
            "action": event.reason,
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._instance,
        }

    def _post(self) -> None:
        allowed, before = float(BURST), time.monotonic()
        while True:
            event = self._waiting.get()
            allowed, before = min(BURST, allowed + PER_SECOND * (time.monotonic() - before)) - 1, time.monotonic()
            if allowed < 0 and not self._hurry.is_set():
                self._hurry.wait(-allowed / PER_SECOND)
            try:
                self._api.post(paths.collection("v1", "Event", event["metadata"]["namespace"]), event)
            except ApiError as error:
                log.warning("event not posted", extra={"reason": event["reason"], "error": str(error)[:300]})
            finally:
                self._waiting.task_done()

"""Kubernetes events of a job, posted in the background: telling must never delay doing."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lprl_api import names
from lprl_operator.decide.actions import Event
from lprl_operator.kube import paths
from lprl_operator.kube.api import ApiError, KubeApi
from lprl_operator.places.kube import reduce

log = logging.getLogger(__name__)
CAPACITY = 10_000
"""Events waiting to be posted; beyond it (an API server away for long, a thousand jobs changing) the newest are dropped and logged."""
PER_SECOND, BURST = 4, 100
"""Events posted: a thousand jobs that start at once are told later than they are served."""
CROWD = 50
"""With more events waiting than this, a job's newest Normal event replaces the one of it that waits: what is told late is told shortly."""
COMPONENT = "lprl-operator"


class EventLog:
    """Posts events from one thread of its own. Warnings are never replaced."""

    def __init__(self, api: KubeApi, instance: str, start: bool = True) -> None:
        self._api, self._instance = api, instance
        self._waiting: deque[_Slot] = deque()
        self._normal: dict[str, _Slot] = {}
        """By uid of the job: its newest Normal event that waits."""
        self._changed = threading.Condition()
        self._hurry = threading.Event()
        self._posting = False
        self.tell: Callable[[Event], None] = lambda event: None
        """Called with each event that is sent."""
        if start:
            threading.Thread(target=self._post_for_ever, name="events", daemon=True).start()

    def send(self, document: Mapping[str, Any], events: Sequence[Event]) -> None:
        """Queue events on a job; never blocks, never raises."""
        with self._changed:
            for event in events:
                self._add(str(reduce.meta(document).get("uid")), event, self._document(document, event))
            self._changed.notify_all()
        for event in events:
            self.tell(event)

    def flush(self, seconds: float = 3.0) -> None:
        """Wait a little until everything queued is posted (at shutdown)."""
        self._hurry.set()
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._posting, seconds)

    def _add(self, uid: str, event: Event, document: dict[str, Any]) -> None:
        slot = self._normal.get(uid)
        if event.type == "Normal" and slot is not None and len(self._waiting) > CROWD:
            slot.document = document
        elif len(self._waiting) >= CAPACITY:
            log.warning("event dropped", extra={"reason": event.reason, "job": document["involvedObject"]["name"]})
        else:
            slot = _Slot(uid, document)
            self._waiting.append(slot)
            if event.type == "Normal":
                self._normal[uid] = slot

    def _take(self, wait_s: float | None = None) -> dict[str, Any] | None:
        """Return the event that waited longest; None when none came for `wait_s`."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting, wait_s):
                return None
            slot = self._waiting.popleft()
            if self._normal.get(slot.uid) is slot:
                del self._normal[slot.uid]
            self._posting = True
            return slot.document

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

    def _post_for_ever(self) -> None:
        allowed, before = float(BURST), time.monotonic()
        while True:
            event = self._take()
            if event is None:
                continue
            allowed, before = min(BURST, allowed + PER_SECOND * (time.monotonic() - before)) - 1, time.monotonic()
            if allowed < 0 and not self._hurry.is_set():
                self._hurry.wait(-allowed / PER_SECOND)
            try:
                self._api.post(paths.collection("v1", "Event", event["metadata"]["namespace"]), event)
            except ApiError as error:
                log.warning("event not posted", extra={"reason": event["reason"], "error": str(error)[:300]})
            finally:
                with self._changed:
                    self._posting = False
                    self._changed.notify_all()


@dataclass
class _Slot:
    """A place in the queue."""

    uid: str
    document: dict[str, Any]

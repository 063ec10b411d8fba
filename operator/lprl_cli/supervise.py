"""The loop around one local job: step the machine, reconcile when something changed or its time came."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from lprl_operator.controller import reconcile
from lprl_operator.decide.observed import Key, Observed
from lprl_operator.places.local.cluster import LocalCluster
from lprl_operator.resources.settings import RenderSettings

POLL_SECONDS = 0.2
RELEASE_SECONDS = 20.0
"""Longest wait for the Ray processes of a finished run to end by themselves."""
ENDED = ("Succeeded", "Failed")
HERE = "this environment"
"""In place of an image: which backends it holds is found out by the inspection, which runs in it."""


class Supervisor:
    """Drives one job to its end on this machine."""

    def __init__(self, cluster: LocalCluster, key: Key) -> None:
        self._cluster = cluster
        self._key = key
        self._settings = RenderSettings(image=HERE, network_policy=False, prometheus_port=None)
        self._seen: Observed | None = None
        self._version = ""
        self._next_look = 0.0

    def run(self, show: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Return the job's final document: finished, or suspended on request. `show` gets each document."""
        while True:
            document = self.once()
            show(document)
            phase = document.get("status", {}).get("phase")
            if phase in ENDED or (phase == "Suspended" and document["spec"].get("suspend")):
                self._release()
                return document
            time.sleep(POLL_SECONDS)

    def once(self) -> dict[str, Any]:
        """One look at the machine, and one reconcile when something changed or the last one asked to look again."""
        self._cluster.step()
        document = self._with_requests(self._document())
        seen = self._cluster.observe(self._key)
        version = document["metadata"]["resourceVersion"]
        if (seen, version) != (self._seen, self._version) or time.monotonic() >= self._next_look:
            again = reconcile(document, self._cluster, datetime.now(UTC), self._settings)
            self._seen, self._version = seen, version
            self._next_look = time.monotonic() + (60.0 if again is None else again)
        return self._cluster.document() or document  # gone: its time to live ended in this very look

    def _document(self) -> dict[str, Any]:
        document = self._cluster.document()
        if document is None:
            raise RuntimeError("the job was deleted (its ttlSecondsAfterFinished is over)")
        return document

    def _with_requests(self, document: dict[str, Any]) -> dict[str, Any]:
        """Apply what `lprl suspend` asked for: the same edit a user makes with kubectl."""
        path = self._cluster.folders.state / "requests.json"
        wanted = bool(json.loads(path.read_text()).get("suspend")) if path.exists() else False
        if not wanted or document["spec"].get("suspend"):
            return document
        return self._cluster.submit({**document, "spec": {**document["spec"], "suspend": True}})

    def _release(self) -> None:
        deadline = time.monotonic() + RELEASE_SECONDS
        while time.monotonic() < deadline and self._cluster.document() is not None:
            self.once()
            if not any(pod.alive for pod in self._cluster.observe(self._key).pods):
                return
            time.sleep(POLL_SECONDS)

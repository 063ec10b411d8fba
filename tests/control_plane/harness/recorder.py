"""Remembers every object of a namespace that it ever saw, so that a test can tell what was made twice."""

import asyncio
import threading
from functools import partial
from pathlib import Path

from tests.control_plane.harness.api import PLURALS
from tests.control_plane.harness.watching import Client, Document

KINDS = ("Job", "RayCluster", "ConfigMap", "ServiceAccount")
OWNED = ("RayCluster", "ServiceAccount")
"""Made at most once for one job under one name, whatever happens; the others are made anew after a suspension.

But a RayCluster that a queue held as long as it was there, and its account: nothing ran, so that name and number are free again.
"""
OURS = "app.kubernetes.io/managed-by=lprl"


class Recorder:
    """Watches from a thread of its own between `start` and `stop`: what was there for a moment only is seen too."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._kubeconfig, self._namespace = kubeconfig, namespace
        self.uids: dict[str, set[str]] = {}
        self.most_clusters: dict[str, int] = {}
        """Most RayClusters of a job at one moment that were not being deleted."""
        self._owned: dict[str, set[str]] = {}
        self._never_ran: set[str] = set()
        self._live: dict[str, set[str]] = {}
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._task = self._loop.create_task(self._watch())
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        if self._task is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join(30)

    def twice(self) -> dict[str, int]:
        """Names under which more than one object was made."""
        return {name: len(uids) for name, uids in list(self.uids.items()) if len(uids) > 1}

    def check(self) -> None:
        """No job made a second object under one name, nor had two clusters at once."""
        assert self._error is None, f"the recorder ended: {self._error!r}"
        again = {name: ran for name, uids in self._owned.items() if len(ran := uids - self._never_ran) > self._allowed(name)}
        assert not again, f"made twice for one job: {again}"
        assert set(self.most_clusters.values()) <= {1}, self.most_clusters

    def _allowed(self, name: str) -> int:
        """How many of a name there may be: of an account as many as there were RayClusters that it is named after."""
        kind, whose, *owner = name.split(" ")
        cluster = " ".join(("RayCluster", whose.removesuffix("-driver"), *owner))
        return max(1, len(self._owned.get(cluster, ()))) if kind == "ServiceAccount" else 1

    def _run(self) -> None:
        assert self._task is not None
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        except Exception as error:  # a bug here must fail the test, not see nothing
            self._error = error
        finally:
            self._loop.close()

    async def _watch(self) -> None:
        client = Client(self._kubeconfig)
        where = f"namespaces/{self._namespace}/"
        try:
            await asyncio.gather(*(client.watch(PLURALS[kind].format(where), OURS, partial(self._saw, kind)) for kind in KINDS))
        finally:
            await client.close()

    def _saw(self, kind: str, change: str, item: Document) -> None:
        meta = item["metadata"]
        known = self.uids.setdefault(f"{kind} {meta['name']}", set())
        is_new = meta["uid"] not in known
        known.add(meta["uid"])
        owner = next((o["uid"] for o in meta.get("ownerReferences", ()) if o.get("controller")), None)
        if owner is not None and kind in OWNED:
            self._owned.setdefault(f"{kind} {meta['name']} of {owner}", set()).add(meta["uid"])
        if kind != "RayCluster":
            return
        if item["spec"].get("suspend") is not True:
            self._never_ran.discard(meta["uid"])
        elif is_new:
            self._never_ran.add(meta["uid"])
        job = meta["labels"].get("lprl.dev/job", "")
        live = self._live.setdefault(job, set())
        if change == "DELETED" or "deletionTimestamp" in meta:
            live.discard(meta["uid"])
        else:
            live.add(meta["uid"])
        self.most_clusters[job] = max(len(live), self.most_clusters.get(job, 0))

"""Remembers every object of a namespace that it ever saw, so that a test can tell what was made twice."""

import threading
import time

from tests.control_plane.harness.api import Api, ApiError

KINDS = ("Job", "RayCluster", "ConfigMap", "ServiceAccount")
OWNED = ("RayCluster", "ServiceAccount")
"""Made at most once for one job under one name, whatever happens; the others are made anew after a suspension."""
LOOK_S = 0.4


class Recorder:
    """Looks again and again from a thread of its own between `start` and `stop`."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api, self._namespace = api, namespace
        self.uids: dict[str, set[str]] = {}
        self.most_clusters: dict[str, int] = {}
        """Most RayClusters of a job at one moment that were not being deleted."""
        self._owned: dict[str, set[str]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(30)

    def twice(self) -> dict[str, int]:
        """Names under which more than one object was made."""
        return {name: len(uids) for name, uids in self.uids.items() if len(uids) > 1}

    def check(self) -> None:
        """No job made a second object under one name, nor had two clusters at once."""
        again = {name: uids for name, uids in self._owned.items() if len(uids) > 1}
        assert not again, f"made twice for one job: {again}"
        assert set(self.most_clusters.values()) <= {1}, self.most_clusters

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._look()
            except ApiError:
                time.sleep(LOOK_S)
            self._stop.wait(LOOK_S)

    def _look(self) -> None:
        for kind in KINDS:
            live: dict[str, int] = {}
            for item in self._api.list(kind, self._namespace, "app.kubernetes.io/managed-by=lprl"):
                meta = item["metadata"]
                self.uids.setdefault(f"{kind} {meta['name']}", set()).add(meta["uid"])
                owner = next((o["uid"] for o in meta.get("ownerReferences", ()) if o.get("controller")), None)
                if owner is not None and kind in OWNED:
                    self._owned.setdefault(f"{kind} {meta['name']} of {owner}", set()).add(meta["uid"])
                job = meta["labels"].get("lprl.dev/job", "")
                if kind == "RayCluster" and "deletionTimestamp" not in meta:
                    live[job] = live.get(job, 0) + 1
            for job, count in live.items():
                self.most_clusters[job] = max(count, self.most_clusters.get(job, 0))

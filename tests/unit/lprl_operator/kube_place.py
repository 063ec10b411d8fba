"""The Kubernetes adapter on an API server in memory: a worker's looks, and what the cache holds after them."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from tests.unit.lprl_operator.kube_memory import Document, MemoryApi
from tests.unit.lprl_operator.world_api import INSPECTION, SETTINGS, manifest

from lprl_api import names
from lprl_operator.controller import reconcile
from lprl_operator.decide.observed import Key
from lprl_operator.places.kube.cache import Cache
from lprl_operator.places.kube.cluster import KubeCluster
from lprl_operator.places.kube.eventlog import EventLog
from lprl_operator.places.kube.shelf import Name

JOBS = "/apis/batch/v1/namespaces/rl/jobs"
MINE = f"/apis/{names.API_VERSION}/namespaces/rl/{names.PLURAL}"


class Place:
    """The adapter, its cache, an API server, and time."""

    def __init__(self) -> None:
        self.api, self.cache = MemoryApi(), Cache()
        server: Any = self.api
        self.cluster = KubeCluster(server, self.cache, EventLog(server, "test", start=False))

    def submit(self, name: str, inspected: bool = True) -> None:
        document = manifest(name, f"uid-{name}")
        document["status"] = {"inspection": INSPECTION.model_dump(mode="json", by_alias=True)} if inspected else {}
        self.cache.put(names.KIND, self.new(document))

    def new(self, document: Document) -> Document:
        return self.api._stored(f"{MINE}/{document['metadata']['name']}", document)

    def look(self, name: str) -> float | None:
        """One turn of a worker."""
        key = Key("rl", name)
        document = self.cache.document(key)
        assert document is not None
        self.cluster.refresh(key, self.api.now)
        return reconcile(document, self.cluster, self.api.now, SETTINGS)

    def wait(self, seconds: float) -> None:
        self.api.now += timedelta(seconds=seconds)

    def job(self) -> str:
        """Path of the one convert or inspect Job there is, empty for none."""
        return next((p for p in self.api.objects if p.startswith(JOBS)), "")

    def cached(self, path: str) -> SimpleNamespace | None:
        found = self.cache.owned_uid("Job", Name("rl", path.rpartition("/")[2]))
        return SimpleNamespace(uid=found[0], owners=found[1]) if found is not None else None


def converting(place: Place, *jobs: str) -> str:
    """Have jobs share a conversion; return its Job's path."""
    for name in jobs:
        place.submit(name)
        place.look(name)
    return place.job()

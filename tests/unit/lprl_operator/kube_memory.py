"""An API server's objects in memory, asked as KubeApi is: what an adapter sees of versions, uids, preconditions and owners."""

from collections import Counter
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from tests.unit.lprl_operator.documents import copied
from tests.unit.lprl_operator.status_schema import refused
from tests.unit.lprl_operator.world_api import START

from lprl_api import names
from lprl_operator.kube.api import ApiError

Document = dict[str, Any]


class MemoryApi:
    """Objects by path. Nothing is told: a test hands to a cache what a watch would, or does not."""

    def __init__(self) -> None:
        self.objects: dict[str, Document] = {}
        self.asked: Counter[str] = Counter()
        """Requests by verb and last part of the path."""
        self.version = 100
        self.now = START
        self.clock = SimpleNamespace(now=lambda: self.now)

    def get(self, path: str, **query: str) -> Document:
        self._count("GET", path)
        if path in self.objects:
            return copied(self.objects[path])
        if _is_collection(path):
            found = [d for p, d in self.objects.items() if p.rpartition("/")[0] == path and _selected(d, query)]
            return {"items": copied(found)}
        raise _missing(path)

    def post(self, path: str, document: Mapping[str, Any], **_: str) -> Document:
        self._count("POST", path)
        item = f"{path}/{document['metadata']['name']}"
        if item in self.objects:
            raise ApiError(409, "AlreadyExists", f"{item} already exists")
        made = copied(dict(document))
        made["metadata"]["uid"] = f"uid-{self.version + 1}"
        return self._stored(item, made)

    def put(self, path: str, document: Mapping[str, Any], **_: str) -> Document:
        self._count("PUT", path)
        item = path.removesuffix("/status")
        if f"/{names.PLURAL}/" in path and (wrong := refused(document["status"])):
            raise ApiError(422, "Invalid", "; ".join(wrong))
        return self._stored(item, {**self._there(item), "status": document["status"]})

    def patch(self, path: str, document: Any, kind: str, **_: str) -> Document:
        """Owner references alone are merged; a uid, and a version where one is given, must be the object's."""
        self._count("PATCH", path)
        found, changes = copied(self._there(path)), document["metadata"]
        self._guard(found, {"uid": changes.get("uid"), "resourceVersion": changes.get("resourceVersion")})
        owners = {o["uid"]: o for o in found["metadata"].get("ownerReferences", ())}
        for owner in changes["ownerReferences"]:
            owners.pop(owner["uid"], None) if "$patch" in owner else owners.update({owner["uid"]: owner})
        found["metadata"]["ownerReferences"] = list(owners.values())
        return self._stored(path, found)

    def delete(self, path: str, options: Mapping[str, Any]) -> Document:
        self._count("DELETE", path)
        self._guard(self._there(path), options.get("preconditions") or {})
        self.take_away(path)
        return {"kind": "Status"}

    def take_away(self, path: str) -> Document:
        """Delete as somebody else does; return the object as a watch tells of its end."""
        self.version += 1
        gone = self.objects.pop(path)
        return {**gone, "metadata": {**gone["metadata"], "resourceVersion": str(self.version)}}

    def change(self, path: str, **status: Any) -> Document:
        """Write status as a controller does."""
        found = copied(self._there(path))
        return self._stored(path, {**found, "status": {**found.get("status", {}), **status}})

    def _count(self, verb: str, path: str) -> None:
        self.asked[f"{verb} {path.rpartition('/')[2]}"] += 1

    def _there(self, path: str) -> Document:
        if path not in self.objects:
            raise _missing(path)
        return self.objects[path]

    def _guard(self, found: Document, wanted: Mapping[str, Any]) -> None:
        for name, value in wanted.items():
            if value is not None and found["metadata"][name] != value:
                raise ApiError(409, "Conflict", f"Precondition failed: {name} in precondition: {value}")

    def _stored(self, path: str, document: Document) -> Document:
        self.version += 1
        document["metadata"] = {**document["metadata"], "resourceVersion": str(self.version)}
        self.objects[path] = document
        return copied(document)


def _selected(document: Document, query: Mapping[str, str]) -> bool:
    meta = document["metadata"]
    name = query.get("fieldSelector", "").removeprefix("metadata.name=")
    labels = dict(part.split("=") for part in query.get("labelSelector", "").split(",") if "=" in part)
    return (not name or meta["name"] == name) and labels.items() <= meta.get("labels", {}).items()


def _missing(path: str) -> ApiError:
    return ApiError(404, "NotFound", f"{path.rpartition('/')[2]} not found")


def _is_collection(path: str) -> bool:
    return path.partition("/namespaces/")[2].count("/") == 1

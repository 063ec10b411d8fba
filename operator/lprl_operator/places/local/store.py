"""Child objects as JSON files, ConfigMap values as files of their own."""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lprl_api.names import KIND
from lprl_operator.places.cluster import Conflict
from lprl_operator.places.local.files import read_json, write_json, write_text
from lprl_operator.places.local.folders import Folders


class ObjectStore:
    """KIND/NAME.json with uid and resourceVersion, as an API server would keep them."""

    def __init__(self, folders: Folders) -> None:
        self._folders = folders

    def _path(self, kind: str, name: str) -> Path:
        return self._folders.objects / kind / f"{name}.json"

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return an object, None when there is none."""
        found: dict[str, Any] | None = read_json(self._path(kind, name))
        return found

    def list(self, kind: str) -> list[dict[str, Any]]:
        """Return all objects of a kind by name."""
        found = [read_json(path) for path in sorted((self._folders.objects / kind).glob("*.json"))]
        return [document for document in found if document is not None]

    def create(self, document: Mapping[str, Any]) -> bool:
        """Write an object once; one that exists stays as it is. ConfigMap values become files first.

        Returns False when the one that exists is controlled by another job than the document says.
        """
        kind, name = document["kind"], document["metadata"]["name"]
        found = self.get(kind, name)
        if found is not None:
            return controller_uid(document) in ("", controller_uid(found))
        if kind == "ConfigMap":
            for key, value in document.get("data", {}).items():
                write_text(self._folders.configmaps / name / key, value)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        meta = {**document["metadata"], "uid": uuid.uuid4().hex[:12], "resourceVersion": "1", "creationTimestamp": now}
        write_json(self._path(kind, name), {**document, "metadata": meta})
        return True

    def replace(self, document: Mapping[str, Any]) -> None:
        """Write a changed object under the next resourceVersion."""
        meta = {**document["metadata"], "resourceVersion": str(int(document["metadata"]["resourceVersion"]) + 1)}
        write_json(self._path(document["kind"], meta["name"]), {**document, "metadata": meta})

    def apply_config_map(self, document: Mapping[str, Any]) -> None:
        """Set the given keys of an existing ConfigMap; the others are the driver's."""
        name = document["metadata"]["name"]
        if self.get("ConfigMap", name) is None:
            return
        for key, value in document.get("data", {}).items():
            write_text(self._folders.configmaps / name / key, value)

    def value(self, name: str, key: str) -> str | None:
        """Return one ConfigMap value, None when there is none."""
        try:
            return (self._folders.configmaps / name / key).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def remove(self, kind: str, name: str) -> None:
        """Drop an object and, for a ConfigMap, its values."""
        self._path(kind, name).unlink(missing_ok=True)
        if kind == "ConfigMap":
            folder = self._folders.configmaps / name
            for path in folder.glob("*"):
                path.unlink()
            if folder.exists():
                folder.rmdir()

    def checked(self, kind: str, name: str, uid: str | None, version: str | None) -> dict[str, Any] | None:
        """Return the object if it still is the one that was read.

        Raises:
            Conflict: its uid or resource version is another one now.

        """
        found = self.get(kind, name)
        if found is None:
            return None
        meta = found["metadata"]
        if (uid is not None and meta["uid"] != uid) or (version is not None and meta["resourceVersion"] != version):
            raise Conflict(f"{kind} {name} changed since it was read")
        return found


def owner_uids(document: Mapping[str, Any]) -> frozenset[str]:
    """Return the uids in an object's ownerReferences."""
    return frozenset(o["uid"] for o in document["metadata"].get("ownerReferences", ()))


def holders(document: Mapping[str, Any]) -> frozenset[str]:
    """Return the uid of the controlling owner where there is one, else of all owners: whose object it is."""
    controller = controller_uid(document)
    return frozenset({controller}) if controller else owner_uids(document)


def is_foreign(document: Mapping[str, Any]) -> bool:
    """Whether a Job belongs to nobody, or to something else than jobs of our kind and batch Jobs."""
    owners = document["metadata"].get("ownerReferences", ())
    return not owners or any(o["kind"] not in (KIND, "Job") for o in owners)


def controller_uid(document: Mapping[str, Any]) -> str:
    """Return the uid of the controlling owner, empty for a shared object."""
    return next((str(o["uid"]) for o in document["metadata"].get("ownerReferences", ()) if o.get("controller")), "")


def created_at(document: Mapping[str, Any]) -> datetime:
    """Return when an object was created."""
    return datetime.fromisoformat(document["metadata"]["creationTimestamp"])

"""PURE: whose an API document is, by its owner references and labels."""

from collections.abc import Mapping
from typing import Any

from lprl_api.names import KIND, LABEL_JOB
from lprl_operator.decide.observed import Key

Document = Mapping[str, Any]


def owner_uids(document: Document) -> frozenset[str]:
    """UIDs in ownerReferences."""
    return frozenset(str(o.get("uid", "")) for o in _owners(document))


def holders(document: Document) -> frozenset[str]:
    """UID of the controlling owner where there is one, else of all owners: whose object it is."""
    controller = controller_uid(document)
    return frozenset({controller}) if controller else owner_uids(document)


def is_foreign(document: Document) -> bool:
    """Whether a Job belongs to nobody, or to something else than jobs of our kind and batch Jobs."""
    return not _owners(document) or any(o.get("kind") not in (KIND, "Job") for o in _owners(document))


def controller_uid(document: Document) -> str:
    """Uid of the controlling owner, empty for a shared object."""
    return next((str(o.get("uid", "")) for o in _owners(document) if o.get("controller")), "")


def owning_jobs(document: Document) -> frozenset[Key]:
    """Jobs that own an object, by name; also the one it is labelled with."""
    meta = document.get("metadata") or {}
    namespace, labelled = str(meta.get("namespace", "")), str((meta.get("labels") or {}).get(LABEL_JOB, ""))
    owners = {Key(namespace, str(o["name"])) for o in _owners(document) if o.get("kind") == KIND}
    return frozenset(owners | ({Key(namespace, labelled)} if labelled else set()))


def owning_batch_job(document: Document) -> str:
    """Name of the batch Job that owns a finalise Job, empty for others."""
    return next((str(o.get("name", "")) for o in _owners(document) if o.get("kind") == "Job" and not o.get("controller")), "")


def _owners(document: Document) -> tuple[Mapping[str, Any], ...]:
    return tuple((document.get("metadata") or {}).get("ownerReferences") or ())

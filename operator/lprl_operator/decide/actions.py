"""What a decision may do to children, as frozen values. An adapter executes them in order and nothing else.

Every action is idempotent: executing it again on the state it already produced changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lprl_operator.decide.observed import ObjectRef

Document = Mapping[str, Any]


def ref_of(document: Document) -> ObjectRef:
    """Return the identity of a rendered document."""
    meta = document["metadata"]
    return ObjectRef(document["apiVersion"], document["kind"], meta["namespace"], meta["name"])


@dataclass(frozen=True, slots=True)
class Create:
    """Create once: an object that exists is left exactly as it is (a queue may have edited it).

    A refusal is not raised: the adapter keeps it and shows it in `Observed.refusals` (or `missing_kinds`). So it does, as one
    that is not permanent, with an object of that name and a single controller other than the document's: it is left over from
    a deleted job of the same name, and garbage collection is about to take it.
    """

    document: Document

    def __str__(self) -> str:
        return f"create {ref_of(self.document)}"


@dataclass(frozen=True, slots=True)
class Apply:
    """Server-side apply (field manager `names.FIELD_MANAGER`, force) of fields that are ours alone.

    Used for the `control.json` key of the progress ConfigMap: the driver's `progress.json` in it is not touched.
    The object is expected to exist; when it does not, nothing is created.
    """

    document: Document

    def __str__(self) -> str:
        return f"apply {ref_of(self.document)}"


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete with background propagation an object that was observed to be ours, if it is still that one. A missing one is fine.

    Raises:
        ValueError: the uid is empty: nothing is ever deleted by its name alone.
        Conflict: (by the adapter) the uid, or the resource version where given, is another one now.

    """

    ref: ObjectRef
    uid: str
    resource_version: str | None = None
    """Given for shared objects: nobody may have joined since it was read."""

    def __post_init__(self) -> None:
        if not self.uid:
            raise ValueError(f"{self.ref}: a deletion names the uid of what was observed")

    def __str__(self) -> str:
        return f"delete {self.ref}"


@dataclass(frozen=True, slots=True)
class DeleteOwned:
    """Delete an object that is not observed, if its controller is this one: it is read first, and deleted by the uid it then has.

    Whatever else bears that name is left alone. A missing object is fine.
    """

    ref: ObjectRef
    owner_uid: str

    def __post_init__(self) -> None:
        if not self.owner_uid:
            raise ValueError(f"{self.ref}: a deletion names whose object it is")

    def __str__(self) -> str:
        return f"delete {self.ref}"


@dataclass(frozen=True, slots=True)
class AddOwner:
    """Add our owner reference to a shared object, keeping the others. Another uid than the one given: Conflict."""

    ref: ObjectRef
    uid: str
    owner: Document
    """An ownerReferences entry."""

    def __str__(self) -> str:
        return f"own {self.ref}"


@dataclass(frozen=True, slots=True)
class RemoveOwner:
    """Remove our owner reference from a shared object that others own too, if its resource version is still this one."""

    ref: ObjectRef
    uid: str
    resource_version: str
    owner_uid: str

    def __str__(self) -> str:
        return f"disown {self.ref}"


@dataclass(frozen=True, slots=True)
class Hold:
    """Suspend a RayCluster until `Begin`, and note on it that it was us; all its pods go. Another uid or attempt than given: Conflict."""

    ref: ObjectRef
    uid: str
    attempt: int
    """Which it is labelled with, and stays."""
    job: str
    """Name of the job it is of."""

    def __str__(self) -> str:
        return f"hold {self.ref}"


@dataclass(frozen=True, slots=True)
class Begin:
    """Write into a RayCluster, at once, which attempt its pods are of from now on. Pods that are there are not touched.

    Another uid, or another attempt than `seen_attempt`: Conflict.
    """

    document: Document
    """The RayCluster as rendered for the attempt: labels and annotations of it and of its pod templates are taken, nothing else."""
    uid: str
    seen_attempt: int
    """Which it was labelled with."""
    suspend: bool | None
    """`spec.suspend` to write. True: its pods go, and a queue lets go afterwards; False: ends a `Hold`; None: is left as it is."""

    @property
    def ref(self) -> ObjectRef:
        """Identity of the RayCluster."""
        return ref_of(self.document)

    def __str__(self) -> str:
        return f"begin the next attempt in {self.ref}"


@dataclass(frozen=True, slots=True)
class Nudge:
    """Have KubeRay look at a RayCluster, as any change of its annotations does. Another uid or attempt than given: Conflict."""

    ref: ObjectRef
    uid: str
    attempt: int
    job: str
    at: str
    """When, RFC 3339."""

    def __str__(self) -> str:
        return f"nudge {self.ref}"


@dataclass(frozen=True, slots=True)
class Raise:
    """Give a shared Job that a queue holds another priority class. Another resource version than given: Conflict."""

    ref: ObjectRef
    uid: str
    resource_version: str
    job: str
    """Name of the job for whose sake."""
    priority_class: str

    def __str__(self) -> str:
        return f"raise {self.ref} to priority class {self.priority_class}"


@dataclass(frozen=True, slots=True)
class Relabel:
    """Give an object of one job other labels of queue and priority. Another resource version than given: Conflict."""

    ref: ObjectRef
    uid: str
    resource_version: str
    job: str
    """Name of the job it is of."""
    labels: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"label {self.ref} {', '.join(f'{key}={value}' for key, value in self.labels)}"


Wish = Raise | Relabel
"""Places in a queue: what is refused is left at that."""
HandOver = Hold | Begin | Nudge | Wish
Action = Create | Apply | Delete | DeleteOwned | AddOwner | RemoveOwner | HandOver


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes event on the job; sent only after the status write it belongs to succeeded."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str

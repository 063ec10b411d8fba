"""What lies in a run folder besides the checkpoints themselves: whose it is, what was trained in it, which attempt owns it.

Read by the pods (which write it), by the inspection, before any cluster, and by `lprl run`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from lprl_api.base import Contract
from lprl_api.derived.trained import RESULT_FIELDS, differences, trained_document
from lprl_api.errors import UserError
from lprl_api.field_error import as_text
from lprl_api.spec.job import LowPrecisionRLJobSpec
from lprl_api.spec.topology import Topology

FENCE = "FENCE"
"""File with the number of the newest attempt that opened the folder."""
OWNER = "owner.json"
MAX_OWNER_BYTES = 1024 * 1024
SHOWN = 5
"""Differing fields whose values are told; of more, the names."""
_STEP = re.compile(r"^step-(\d{6,})$")


def step_name(step: int) -> str:
    """Return the folder name of a step's checkpoint."""
    return f"step-{step:06d}"


def steps_of(folder: Path) -> list[int]:
    """Return the steps that have a checkpoint folder, ascending; whether they are intact is another question."""
    found = (_STEP.match(path.name) for path in folder.glob("step-*") if path.is_dir())
    return sorted(int(match.group(1)) for match in found if match)


class Owner(Contract):
    """Content of owner.json: the job whose checkpoints these are, and what it trained."""

    schema_version: Literal[1] = 1
    namespace: str
    name: str
    uid: str
    trained: dict[str, Any] | None
    """See `trained.trained_document`; none where an operator of an earlier version did not say."""

    def __str__(self) -> str:
        return f"job {self.namespace}/{self.name} (uid {self.uid})"


@dataclass(frozen=True, slots=True)
class Content:
    """What a run folder holds before a job takes it."""

    folder: Path
    fence: int
    """Newest attempt that opened it, 0 for none."""
    step: int | None
    """Newest step that has a checkpoint folder."""
    owner: Owner | None
    """None for an empty folder, and for one of a version that did not note it."""


def content_of(folder: Path) -> Content:
    """Look at a run folder, which may not be there. Raises UserError when what it says of itself cannot be read."""
    fence = folder / FENCE
    try:
        attempt = int(fence.read_text()) if fence.exists() else 0
    except ValueError:
        raise UserError(f"{fence}: no attempt number in it", "write the newest attempt's number into it, or use another folder") from None
    return Content(folder, attempt, max(steps_of(folder), default=None), _owner(folder / OWNER))


def _owner(path: Path) -> Owner | None:
    if not path.exists():
        return None
    if path.stat().st_size > MAX_OWNER_BYTES:
        raise UserError(f"{path}: {path.stat().st_size} bytes, at most {MAX_OWNER_BYTES} fit", "remove it, or use another folder")
    try:
        return Owner.model_validate_json(path.read_bytes())
    except ValidationError:
        remedy = "remove it if the checkpoints beside it are this job's, or give this job another checkpoint.path"
        raise UserError(f"{path}: does not say whose checkpoints these are", remedy) from None


def changed_fields(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the dotted fields of the spec at which what was trained differs; a default of a newer version is none."""
    return tuple(f"spec.{path}" for path in differences(_renewed(before), now))


def check_folder(found: Content, me: Owner, place: str) -> None:
    """Refuse to go on in a run folder in which something else was trained, or which another namespace's job uses.

    Raises UserError: whose folder it is, which fields differ, and the three ways out.
    """
    if found.owner is None or (found.owner.uid == me.uid and found.owner.trained == me.trained):
        return
    if found.owner.namespace != me.namespace:
        raise UserError(f"checkpoint folder {place} is that of {found.owner}, this is {me}", WAYS_OUT)
    if found.step is None or found.owner.trained is None or me.trained is None:
        return
    fields = changed_fields(found.owner.trained, me.trained)
    if fields:
        told = "; ".join(_values(fields, found.owner.trained, me.trained))
        raise UserError(
            f"checkpoint folder {place} holds step {found.step} of {found.owner}, which trained something else: {told}", WAYS_OUT
        )


WAYS_OUT = "give this job another name, another checkpoint.path, or start from that checkpoint with checkpoint.loadFrom"


def _values(fields: tuple[str, ...], before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    shown = [f"{f} was {as_text(_at(before, f))}, is {as_text(_at(now, f))}" for f in fields[:SHOWN]]
    return [*shown, *([f"and {', '.join(fields[SHOWN:])}"] if len(fields) > SHOWN else [])]


def _at(document: Mapping[str, Any], field: str) -> Any:
    value: Any = document
    for key in field.split(".")[1:]:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _renewed(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what an earlier version wrote with the defaults of fields that came since; as it is where it no longer parses."""
    parts: dict[str, Any] = {}
    try:
        for field in RESULT_FIELDS:
            kind = LowPrecisionRLJobSpec.model_fields[field].annotation
            assert isinstance(kind, type) and issubclass(kind, Contract), "every part is one"
            # The number of steps is left out of the document, and needed to parse.
            parts[field] = kind.model_validate(({"steps": 1} if field == "algorithm" else {}) | document.get(field, {}))
    except (ValidationError, KeyError, TypeError):
        return document
    return trained_document(LowPrecisionRLJobSpec.model_construct(**parts, evaluation=None, topology=Topology()))

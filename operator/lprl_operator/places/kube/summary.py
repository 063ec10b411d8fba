"""PURE: a job as cached: its document as text, and what metrics say of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lprl_api import names
from lprl_operator.decide.observed import Key
from lprl_operator.places.kube import reduce

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Summary:
    """What metrics say of a job; None where nothing is known yet."""

    phase: str
    step: float | None
    steps: float | None
    reward: float | None
    mismatch: float | None
    tokens_per_second: float | None
    attempt: float | None
    restarts_used: float | None
    conditions: tuple[tuple[str, int], ...]
    """(type, 1 True, 0 False, -1 Unknown)."""


@dataclass(frozen=True, slots=True)
class JobDocument:
    """A job as cached."""

    text: bytes
    summary: Summary


def job_document(document: Document) -> tuple[JobDocument, Any, frozenset[Key]]:
    """A job is kept as text: a fifth of the memory of a parsed one, and parsed in well under a millisecond."""
    found = {k: v for k, v in reduce.meta(document).items() if k != "managedFields"}
    slim = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": found, "spec": document.get("spec") or {}}
    status = document.get("status") or {}
    if status:
        slim["status"] = status
    text = json.dumps(slim, separators=(",", ":")).encode()
    tells = (found.get("generation"), "deletionTimestamp" in found, found.get("uid"), hash(json.dumps(status, sort_keys=True)))
    key = Key(str(found.get("namespace", "")), str(found.get("name", "")))
    return JobDocument(text, summary(status)), tells, frozenset({key})


def summary(status: Document) -> Summary:
    """What metrics say of a job. Numbers a user wrote into status by hand are not trusted to be numbers."""
    training = status.get("training") or {}
    held = tuple((str(c.get("type")), _CONDITION.get(str(c.get("status")), -1)) for c in status.get("conditions") or ())
    return Summary(
        phase=str(status.get("phase") or "Pending"),
        step=_number(training.get("step")),
        steps=_number(training.get("steps")),
        reward=_number(training.get("reward")),
        mismatch=_number(training.get("mismatch")),
        tokens_per_second=_number(training.get("tokensPerSecond")),
        attempt=_number(status.get("attempt")),
        restarts_used=_number(status.get("restartsUsed")),
        conditions=held,
    )


_CONDITION = {"True": 1, "False": 0}


def _number(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None

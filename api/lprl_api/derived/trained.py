"""What a run's result follows from: a run folder remembers it, and it may not change once a job has started.

One list for both sides: the CRD's transition rules and the operator refuse edits of these fields, and the run folder refuses to
go on under a spec that differs in one of them.
"""

from collections.abc import Mapping
from typing import Any

from lprl_api.derived.effective import effective
from lprl_api.spec.job import LowPrecisionRLJobSpec

RESULT_FIELDS = ("model", "precision", "data", "algorithm", "optimizer", "sampling", "episode")
"""Parts of a spec that decide what is trained."""
MAY_CHANGE = ("model.shape", "algorithm.steps")
"""Fields below them that do not: a shape is for planning, and steps may be raised."""
ACCESS = ("huggingFace.tokenSecret", "s3.secret", "cache")
"""Fields of a model source that say how it is reached, not what it is."""
NO_PART = (
    *MAY_CHANGE,
    *(f"model.{model}.{field}" for model in ("source", "reference") for field in ACCESS),
    *(f"data.reward.{field}" for field in ("headersSecret", "timeoutSeconds", "retries")),
    *(f"episode.tools.{field}" for field in ("headersSecret", "timeoutSeconds", "retries")),
    *(f"episode.tools.sandbox.{field}" for field in ("maxConcurrent", "claimSeconds")),
    *("episode.timeoutSeconds", "episode.maxFailedFraction"),
)
"""What a run folder does not compare: another job may go on in it with other credentials and patience."""


def trained_document(spec: LowPrecisionRLJobSpec) -> dict[str, Any]:
    """Return what decides the result, JSON-ready, camelCase, every default written out: a default written or not is the same."""
    whole = effective(spec).document()
    found = {field: whole[field] for field in RESULT_FIELDS}
    for path in NO_PART:
        found = _without(found, path.split("."))
    return found


def _without(document: dict[str, Any], path: list[str]) -> dict[str, Any]:
    """Return a document without the value at a path, where there is one; in lists, of every entry."""
    key, *rest = path
    if not rest:
        return {name: value for name, value in document.items() if name != key}
    inner = document.get(key)
    if isinstance(inner, list):
        return {**document, key: [_without(part, rest) for part in inner]}
    return {**document, key: _without(inner, rest)} if isinstance(inner, dict) else document


def differences(left: Mapping[str, Any], right: Mapping[str, Any], prefix: str = "") -> tuple[str, ...]:
    """Return the dotted paths at which two such documents differ, sorted; a key that only one of them has counts."""
    found: list[str] = []
    for key in sorted({*left, *right}):
        a, b, path = left.get(key), right.get(key), f"{prefix}{key}"
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{path}.")
        elif a != b or (key in left) != (key in right):
            found.append(path)
    return tuple(found)

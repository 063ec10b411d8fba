"""What a run's result follows from: a run folder remembers it, and it may not change once a job has started.

One list for both sides: the CRD's transition rules and the operator refuse edits of these fields, and the run folder refuses to
go on under a spec that differs in one of them.
"""

from collections.abc import Mapping
from typing import Any

from lprl_api.effective import effective
from lprl_api.spec import LowPrecisionRLJobSpec

RESULT_FIELDS = ("model", "precision", "data", "algorithm", "optimizer", "sampling")
"""Parts of a spec that decide what is trained."""
MAY_CHANGE = ("model.shape", "algorithm.steps")
"""Fields below them that do not: a shape is for planning, and steps may be raised."""


def trained_document(spec: LowPrecisionRLJobSpec) -> dict[str, Any]:
    """Return what decides the result, JSON-ready, camelCase, every default written out: a default written or not is the same."""
    whole = effective(spec).document()
    found = {field: whole[field] for field in RESULT_FIELDS}
    for path in MAY_CHANGE:
        part, _, leaf = path.partition(".")
        found[part] = {key: value for key, value in found[part].items() if key != leaf}
    return found


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

"""When an edit of a spec takes effect: never (it decides the result), at once, or with the next attempt.

One table for the CRD's transition rules, the webhook, the operator's own check and the events that tell of an edit.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from lprl_api.derived.trained import MAY_CHANGE, RESULT_FIELDS, differences
from lprl_api.spec.job import LowPrecisionRLJobSpec

FIXED = (
    *RESULT_FIELDS,
    "topology",
    "backends",
    *("checkpoint.volume", "checkpoint.path", "checkpoint.loadFrom"),
    *("conversion.volume", "conversion.path"),
)
"""May not change once the job has started (`status.startTime`)."""
CLAIMS = "volumes"
"""The claims may not change once a driver has begun (`status.trainingStartTime`): until then a wrong one can be corrected."""
NOW = ("algorithm.steps", "stability", "failurePolicy", "suspend", "activeDeadlineSeconds", "ttlSecondsAfterFinished")
"""Take effect at once, in a running attempt too."""
NEXT = ("evaluation", "weightSync", "checkpoint", "conversion", "tracking", "progress", "podTemplate", "volumes.readOnly")
"""Take effect with the next attempt; what waits for pods is made anew with them. Without the parts of these that are fixed."""
_NAMED = frozenset({*FIXED, *NOW, *NEXT, *MAY_CHANGE})


def parts(spec: LowPrecisionRLJobSpec, defaults: bool = False) -> dict[str, Any]:
    """Return the parts of a spec by the names above, JSON-ready. Without defaults those of a newer version are no edit."""
    whole = spec.model_dump(mode="json", by_alias=True, exclude_defaults=not defaults)
    found = {path: _part(whole, path) for path in (*FIXED, *NOW, *NEXT)}
    volumes = spec.volumes.items()
    found[CLAIMS] = {name: volume.persistent_volume_claim for name, volume in volumes}
    found["volumes.readOnly"] = {name: volume.read_only for name, volume in volumes}
    return found


def _part(whole: Mapping[str, Any], path: str) -> Any:
    top, _, leaf = path.partition(".")
    value = whole.get(top)
    if leaf:
        return value.get(leaf) if isinstance(value, Mapping) else None
    return {k: v for k, v in value.items() if f"{top}.{k}" not in _NAMED} if isinstance(value, Mapping) else value


def digests(spec: LowPrecisionRLJobSpec) -> dict[str, str]:
    """Return a short hash of each part; parts without a value are left out. Remembered for this very object."""
    return dict(_digests(_This(spec)))


@dataclass(frozen=True, slots=True, eq=False)
class _This:
    """A spec, equal to itself alone: specs hold mappings and so have no hash of their own."""

    spec: LowPrecisionRLJobSpec

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _This) and other.spec is self.spec

    def __hash__(self) -> int:
        return id(self.spec)


@lru_cache(maxsize=4096)
def _digests(this: _This) -> Mapping[str, str]:
    return {path: digest(value) for path, value in parts(this.spec).items() if value not in (None, {}, [])}


def digest(value: Any) -> str:
    """Return the first hex digits of the sha256 of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:8]


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[str, ...]:
    """Return the parts whose digests differ, in the order of the tables."""
    return tuple(path for path in (*FIXED, CLAIMS, *NOW, *NEXT) if before.get(path) != after.get(path))


def refused(before: LowPrecisionRLJobSpec, after: LowPrecisionRLJobSpec, trains: bool) -> tuple[str, ...]:
    """Return the fields below spec that differ and may not, of a job that has started (`trains`: and whose driver has begun)."""
    old, new = parts(before, defaults=True), parts(after, defaults=True)
    names = (*FIXED, CLAIMS) if trains else FIXED
    found = [path for name in names for path in differences({name: old[name]}, {name: new[name]})]
    return tuple([*found, "algorithm.steps"] if after.algorithm.steps < before.algorithm.steps else found)


def when(paths: tuple[str, ...]) -> str:
    """Return when edits of these parts take effect, in words."""
    now, later = [p for p in paths if p in NOW and p != "suspend"], [p for p in paths if p in (*NEXT, CLAIMS)]
    told = [f"{', '.join(now)}: now"] if now else []
    told += [f"{', '.join(later)}: with the next attempt; suspend and resume to apply it now"] if later else []
    return "; ".join(told)

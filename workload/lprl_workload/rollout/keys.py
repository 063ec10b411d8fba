"""Keys of a row: plain, or nested with dots, such as `reward_model.ground_truth` (pure)."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

SHOWN = 24
"""Keys listed in an error."""


class Missing:
    """What `lookup` returns for a key that is not there."""


MISSING = Missing()


def prefixes(key: str) -> Iterator[tuple[str, str]]:
    """Yield (column, rest of the key) as the key can be read, the literal column first: `a.b.c` is column a.b.c, a.b, then a."""
    yield key, ""
    for place in range(len(key) - 1, 0, -1):
        if key[place] == ".":
            yield key[:place], key[place + 1 :]


def lookup(row: Mapping[str, Any], key: str) -> Any:
    """Return the value under `key`, MISSING when there is none.

    A column whose name is the whole key wins; else the part before a dot names a mapping (or JSON text of one), the rest a key in it.
    """
    for column, rest in prefixes(key):
        if column not in row:
            continue
        if not rest:
            return row[column]
        inner = as_mapping(row[column])
        found = MISSING if inner is None else lookup(inner, rest)
        if not isinstance(found, Missing):
            return found
    return MISSING


def as_mapping(value: object) -> Mapping[str, Any] | None:
    """Return a mapping given as such or as JSON text; None for anything else."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, Mapping) else None


def named(row: Mapping[str, Any], nested: int = 1) -> list[str]:
    """Return the keys a row can be asked for: its columns, and below mappings `nested` levels of dotted keys."""
    found: list[str] = []
    for key, value in row.items():
        inner = as_mapping(value) if nested else None
        found += [f"{key}.{name}" for name in named(inner, nested - 1)] if inner else [str(key)]
    return found


def listed(keys: list[str]) -> str:
    """Return keys for an error: sorted, the first ones, `none` when there are none."""
    shown = sorted(keys)[:SHOWN]
    return ", ".join(shown) + (f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else "") or "none"

"""What an API server says of a status that does not keep to the CRD's schema: nothing of such a write is taken over."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from lprl_api.crd.generate import crd

TYPES: dict[str, type | tuple[type, ...]] = {
    "object": Mapping,
    "array": (list, tuple),
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
}


def refused(status: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a status, a line each."""
    return list(_wrong(_schema(), status, "status"))


@cache
def _schema() -> dict[str, Any]:
    found: dict[str, Any] = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    return found


def _wrong(schema: Mapping[str, Any], value: Any, path: str) -> Iterator[str]:
    if value is None:
        if not schema.get("nullable"):
            yield f"{path}: null"
        return
    kind = schema.get("type")
    if kind is not None and (not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        yield f"{path}: {type(value).__name__} is no {kind}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value} is none of {schema['enum']}"
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        yield f"{path}: {value} does not match"
    if kind in ("integer", "number") and not schema.get("minimum", value) <= value <= schema.get("maximum", 2**63 - 1):
        yield f"{path}: {value} is out of bounds"
    for word in ("Length", "Items", "Properties"):
        sized = {"Length": str, "Items": (list, tuple), "Properties": Mapping}[word]
        if isinstance(value, sized) and not schema.get(f"min{word}", 0) <= len(value) <= schema.get(f"max{word}", len(value)):
            yield f"{path}: {len(value)} is not within min{word} and max{word} {schema.get(f'max{word}')}"
    if isinstance(value, Mapping):
        yield from _wrong_fields(schema, value, path)
    elif isinstance(value, list | tuple):
        for at, item in enumerate(value):
            yield from _wrong(schema["items"], item, f"{path}[{at}]")


def _wrong_fields(schema: Mapping[str, Any], value: Mapping[str, Any], path: str) -> Iterator[str]:
    known, others = schema.get("properties", {}), schema.get("additionalProperties")
    yield from (f"{path}.{name}: missing" for name in schema.get("required", ()) if name not in value)
    for name, item in value.items():
        below = known.get(name, others)
        if isinstance(below, Mapping):
            yield from _wrong(below, item, f"{path}.{name}")
        elif not schema.get("x-kubernetes-preserve-unknown-fields"):
            yield f"{path}.{name}: unknown"

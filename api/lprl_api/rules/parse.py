"""Documents (YAML or JSON, already loaded) to typed values; every schema error at once."""

import difflib
import json
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from lprl_api import names
from lprl_api.base import PATH_PATTERN
from lprl_api.field_error import FieldError, InvalidJob, as_text
from lprl_api.kube_names import PATTERN_WORDS
from lprl_api.rules.check import check_partial
from lprl_api.rules.partial import from_json, partial_spec, strictly
from lprl_api.spec.job import LowPrecisionRLJob, LowPrecisionRLJobSpec, Metadata

__all__ = ["InvalidJob", "parse_job"]

_MISSING = object()
_JOB = TypeAdapter(LowPrecisionRLJob)
_SPEC = TypeAdapter(LowPrecisionRLJobSpec)
_METADATA = TypeAdapter(Metadata)
REMEMBERED = 4096
"""Specs, of as many jobs: a job is looked at every few seconds and edited seldom."""


def parse_job(document: Mapping[str, Any]) -> LowPrecisionRLJob:
    """Return the typed job of a manifest; `status` and foreign metadata are ignored.

    Types are strict, as the API server's are: "120" and true are no numbers.
    Raises InvalidJob with one FieldError per wrong field, and then with every rule (rules.py) that the rest breaks whatever stands
    in those fields. The rules of a job that parses are the caller's to check.
    """
    if not isinstance(document, Mapping):
        raise InvalidJob([FieldError("manifest", type(document).__name__, f"a mapping with apiVersion {names.API_VERSION}")])
    errors = _envelope_errors(document)
    job = {key: document[key] for key in ("metadata", "spec") if key in document}
    if isinstance(job.get("metadata"), Mapping):
        job["metadata"] = _own_metadata(job["metadata"])
    try:
        parsed = _strict_job(job)
    except ValidationError as error:
        errors += field_errors(error, job)
    if errors:
        raise InvalidJob(errors + _broken_rules(job.get("spec"), errors))
    return parsed


def _strict_job(job: Mapping[str, Any]) -> LowPrecisionRLJob:
    """Return the typed job; one spec is one object at every look, so that what follows from it can be remembered by it."""
    try:
        spec, metadata = _spec(json.dumps(job.get("spec"), default=str)), strictly(_METADATA, job.get("metadata"))
    except ValidationError:
        return strictly(_JOB, job)  # says every error with its place
    return LowPrecisionRLJob(metadata=metadata, spec=spec)


@lru_cache(maxsize=REMEMBERED)
def _spec(text: str) -> LowPrecisionRLJobSpec:
    return from_json(_SPEC, text)


def _own_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the metadata keys we read: the API server adds many we do not."""
    known = {field.alias for field in Metadata.model_fields.values()}
    return {key: value for key, value in metadata.items() if key in known and value is not None}


def _broken_rules(spec: Any, errors: list[FieldError]) -> list[FieldError]:
    if not isinstance(spec, Mapping):
        return []
    said = {error.path for error in errors}
    return [error for error in check_partial(partial_spec(spec)) if error.path not in said]


def field_errors(error: ValidationError, document: Mapping[str, Any]) -> list[FieldError]:
    """Return pydantic's errors as field errors, one per path (the branches of a union share one)."""
    by_path: dict[str, FieldError] = {}
    for detail in error.errors(include_url=False):
        if _is_long_enough(detail):
            continue
        found = _field_error(detail, document)
        earlier = by_path.get(found.path)
        if earlier is not None and found.need not in earlier.need:
            found = FieldError(found.path, earlier.got, f"{earlier.need}, or {found.need}")
        by_path[found.path] = found
    return list(by_path.values())


def _is_long_enough(detail: ErrorDetails) -> bool:
    """Whether a list is called too short for its wrong items only, which pydantic does not count."""
    given = detail["input"]
    return detail["type"] == "too_short" and isinstance(given, list) and len(given) >= detail["ctx"]["min_length"]


def _envelope_errors(document: Mapping[str, Any]) -> list[FieldError]:
    wanted = {"apiVersion": names.API_VERSION, "kind": names.KIND}
    errors = [FieldError(key, as_text(document.get(key)), want) for key, want in wanted.items() if document.get(key) != want]
    known = {*wanted, "metadata", "spec", "status"}
    return errors + [FieldError(str(key), as_text(document[key]), "no such field; remove it") for key in document if key not in known]


def _field_error(detail: ErrorDetails, document: Mapping[str, Any]) -> FieldError:
    location = _document_location(detail["loc"])
    value = location[-1] if detail["loc"][-1:] == ("[key]",) else _lookup(document, location)
    path = _path(location)
    if detail["type"] == "missing":
        return FieldError(path, "nothing", _described("a value", location))
    if detail["type"] == "extra_forbidden":
        return FieldError(path, _json(value), _unknown_field(location))
    return FieldError(path, _found(value, detail["type"]), _described(_need(detail), location))


def _found(value: Any, problem: str) -> str:
    """Return a value as a manifest shows it, with its type where that is what is wrong."""
    number_as_text = problem == "literal_error" and isinstance(value, str) and value.isdecimal()
    if value is _MISSING or value is None or not (problem.endswith("_type") or number_as_text):
        return _json(value)
    kind = next((name for types, name in _TYPES if isinstance(value, types)), type(value).__name__)
    return f"{as_text(json.dumps(value, default=str))} ({kind})"


def _document_location(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Drop what pydantic adds for unions (`constrained-int`, `literal['auto']`) and mapping keys (`[key]`)."""
    return tuple(part for part in loc if isinstance(part, int) or not ("[" in part or part in {"constrained-int", "int", "str"}))


def _path(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "manifest"


def _lookup(document: Any, location: tuple[int | str, ...]) -> Any:
    for part in location:
        try:
            document = document[part]
        except (KeyError, IndexError, TypeError):
            return _MISSING
    return document


def _json(value: Any) -> str:
    if value is _MISSING:
        return "nothing"
    return as_text(value if isinstance(value, str) else json.dumps(value, default=str))


_TYPES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "a boolean"),
    ((int, float), "a number"),
    (str, "text"),
    (Mapping, "a mapping"),
    ((list, tuple), "a list"),
)
_NEEDS = {
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "literal_error": "one of {expected}",
    "enum": "one of {expected}",
    "string_pattern_mismatch": "text that matches {pattern}",
    "string_too_long": "at most {max_length} characters",
    "string_too_short": "at least {min_length} characters",
    "too_long": "at most {max_length} entries",
    "too_short": "at least {min_length} entries",
    "finite_number": "a finite number",
    "value_error": "{error}",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "model_type": "a mapping",
    "dict_type": "a mapping",
    "tuple_type": "a list",
    "list_type": "a list",
}
_PATH_WORDS = "a path inside the volume: no / at its beginning or end, no .. or empty part, no control character"


def _need(detail: ErrorDetails) -> str:
    pattern = detail.get("ctx", {}).get("pattern", "")
    words = _PATH_WORDS if pattern == PATH_PATTERN else PATTERN_WORDS.get(pattern)
    if words is not None:
        return words
    template = _NEEDS.get(detail["type"])
    return template.format(**detail.get("ctx", {})) if template else detail["msg"]


def _described(need: str, location: tuple[int | str, ...]) -> str:
    node = _schema_at(location)
    description = str(node.get("description", "")).split("\n")[0] if node else ""
    return f"{need} ({description.rstrip('.')})" if description else need


def _unknown_field(location: tuple[int | str, ...]) -> str:
    parent = _schema_at(location[:-1]) or {}
    known = sorted(parent.get("properties", {}))
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    if close:
        return f"no such field; did you mean {close[0]}?"
    return f"no such field; known: {', '.join(known)}" if known else "no such field; remove it"


@cache
def _schema() -> dict[str, Any]:
    return LowPrecisionRLJob.model_json_schema(by_alias=True)


def _schema_at(location: tuple[int | str, ...]) -> dict[str, Any] | None:
    """Return the JSON schema of a location, references followed, or None where there is none."""
    node: dict[str, Any] | None = _schema()
    for part in location:
        branches = _branches(node) if node else []
        node = next((child for branch in branches if (child := _child(branch, part)) is not None), None)
    if node is None:
        return None
    merged = {key: value for branch in reversed(_branches(node)) for key, value in branch.items()}
    return {**merged, **({"description": node["description"]} if "description" in node else {})}


def _child(node: dict[str, Any], part: int | str) -> dict[str, Any] | None:
    found = node.get("items") if isinstance(part, int) else node.get("properties", {}).get(part) or node.get("additionalProperties")
    return found if isinstance(found, dict) else None


def _branches(node: dict[str, Any]) -> list[dict[str, Any]]:
    if "$ref" in node:
        return _branches(_schema()["$defs"][node["$ref"].rsplit("/", 1)[-1]])
    if "anyOf" in node:
        return [leaf for branch in node["anyOf"] for leaf in _branches(branch)]
    return [node]

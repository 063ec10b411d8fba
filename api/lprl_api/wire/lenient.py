"""Reading what a process of another version wrote: what is not known here is left out. Writing and specs stay strict."""

import copy
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from lprl_api.base import Contract

_M = TypeVar("_M", bound=Contract)
LENIENT = {"lenient": True}
"""Context of such a validation, for fields that are required and need a stand-in for a value that is not known."""
_UNKNOWN = frozenset({"extra_forbidden", "literal_error", "enum"})
_VERSION = frozenset({"schemaVersion", "schema_version"})
"""Another one of these says that nothing of a document may be understood in the old way."""


def read(model: type[_M], document: Mapping[str, Any]) -> _M:
    """Return a document as its model; keys and words that are not known, however deep, count as not said.

    Raises ValidationError for what is wrong in another way: a type, a missing field, another schema version.
    """
    try:
        return model.model_validate(document, context=LENIENT)
    except ValidationError as error:
        known = copy.deepcopy(dict(document))
        dropped = [_drop(known, e["loc"]) for e in error.errors(include_url=False) if e["type"] in _UNKNOWN]
        if not any(dropped):
            raise
    return model.model_validate(known, context=LENIENT)


def read_json(model: type[_M], text: str) -> _M:
    """Return a JSON text likewise."""
    try:
        return model.model_validate_json(text, context=LENIENT)
    except ValidationError:
        document = _object(text)
        if document is None:
            raise
    return read(model, document)


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _drop(document: Any, way: tuple[int | str, ...]) -> bool:
    """Take out what lies at a place; False where it is not found so (a union's place names its members, too)."""
    place: Any = document
    for step in way[:-1]:
        try:
            place = place[step]
        except (KeyError, TypeError):
            return False
    key = way[-1]
    if not isinstance(place, dict) or key not in place or key in _VERSION:
        return False
    del place[key]
    return True

"""The spec of a manifest that does not parse, with gaps: a wrong field is not there, and reading it raises AttributeError.

No default takes a wrong field's place. A rule that compared the default with other fields would report what is not wrong.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from inspect import isclass
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from lprl_api.base import Contract
from lprl_api.spec.job import LowPrecisionRLJobSpec

T = TypeVar("T")


class _Gap(Exception):
    """A value is wrong as a whole."""


def partial_spec(spec: Mapping[str, Any]) -> LowPrecisionRLJobSpec:
    """Return what of a spec is right; unknown keys are left out, wrong and missing fields are gaps."""
    found: LowPrecisionRLJobSpec = _model(LowPrecisionRLJobSpec, spec)
    return found


def strictly(adapter: TypeAdapter[T], document: Any) -> T:
    """Return a loaded document as what it stands for, types and keys as strict as the API server's, or raise ValidationError.

    It goes through JSON because only there pydantic's strict mode takes lists for tuples and text for enums.
    """
    return from_json(adapter, json.dumps(document, default=str))


def from_json(adapter: TypeAdapter[T], text: str) -> T:
    """Return what JSON stands for, as strictly."""
    return adapter.validate_json(text, strict=True, by_alias=True, by_name=False)


def _model(kind: type[Contract], document: Mapping[str, Any]) -> Any:
    values: dict[str, Any] = {}
    gaps: list[str] = []
    for name, field in kind.model_fields.items():
        key = field.alias or name
        if key not in document:
            gaps += [name] if field.is_required() else []
            continue
        try:
            values[name] = _value(_field_adapter(kind, name), field.annotation, document[key])
        except _Gap:
            gaps.append(name)
    found = kind.model_construct(**values)
    for name in gaps:
        found.__dict__.pop(name, None)
    return found


def _value(adapter: TypeAdapter[Any], annotation: Any, value: Any) -> Any:
    """Return a value; one with errors inside as a model, or as a container of models, with gaps."""
    try:
        return strictly(adapter, value)
    except ValidationError:
        pass
    for kind in _branches(annotation):
        parts = get_args(kind)
        if isclass(kind) and issubclass(kind, Contract) and isinstance(value, Mapping):
            return _model(kind, value)
        if get_origin(kind) is dict and isinstance(value, Mapping) and value:
            return {key: _value(_adapter(parts[1]), parts[1], child) for key, child in value.items()}
        if get_origin(kind) is tuple and parts[-1] is Ellipsis and isinstance(value, list):
            return tuple(_value(_adapter(parts[0]), parts[0], child) for child in value)
    raise _Gap


def _branches(annotation: Any) -> Iterator[Any]:
    """Yield the types of a union other than None, or the type itself."""
    parts = get_args(annotation)
    if get_origin(annotation) is Annotated:
        yield from _branches(parts[0])
    elif NoneType in parts:
        for part in parts:
            yield from _branches(part) if part is not NoneType else ()
    else:
        yield annotation


@cache
def _field_adapter(kind: type[Contract], name: str) -> TypeAdapter[Any]:
    field = kind.model_fields[name]
    annotation: Any = field.annotation
    return TypeAdapter(Annotated[annotation, *field.metadata] if field.metadata else annotation)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)

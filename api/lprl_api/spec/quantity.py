"""Kubernetes quantities: an integer, or text such as `500m`, `.5`, `1e9`, `4Gi`, `1Ei`."""

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from lprl_api.base import INT64_MAX

PATTERN = r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?$"
MAX_LENGTH = 32
_PARTS = re.compile(r"^\+?([0-9.]+)(.*)$")
_DECIMAL = {"": 0, "n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


def _text(value: Any) -> str:
    """Return a quantity as text. ValueError for what Kubernetes does not take, negative amounts of resources included."""
    if type(value) is int and 0 <= value <= INT64_MAX:
        return str(value)
    if isinstance(value, str) and len(value) <= MAX_LENGTH and re.fullmatch(PATTERN, value):
        return value
    if isinstance(value, float):
        raise ValueError(f'a quoted quantity: "{value}"')
    raise ValueError("a whole number, or text such as 500m, 0.5, 1e9, 4Gi or 1Ei, not negative")


Quantity = Annotated[
    str, BeforeValidator(_text), WithJsonSchema({"type": "string", "pattern": PATTERN, "maxLength": MAX_LENGTH, "x-also": "integer"})
]
"""A Kubernetes quantity, held as text."""


def amount(quantity: str) -> Decimal:
    """Return a quantity as a number: cores, bytes, devices."""
    found = _PARTS.match(quantity)
    if found is None:
        raise ValueError(f"{quantity}: not a quantity")
    number, suffix = Decimal(found[1]), found[2]
    if suffix in _BINARY:
        return number * Decimal(1 << _BINARY[suffix])
    return number.scaleb(_DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:]))

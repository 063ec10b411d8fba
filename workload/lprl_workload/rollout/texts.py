"""Values of rows as text: what is no text is found, numbers are written one way, long ones are shortened (pure)."""

import json
import math
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from lprl_api.errors import UserError

SHOWN = 80
"""Characters of a value quoted in an error."""
EXACT_INTEGERS = 2**53
"""Above this, a float does not say which integer it is."""


def surrogate(text: str) -> int | None:
    """Return the place of the first lone surrogate (half of a character, which no tokenizer and no UTF-8 takes); None without one."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None


def check_text(text: str, where: str) -> str:
    """Return `text`; raises UserError starting with `where` when it holds a lone surrogate."""
    place = surrogate(text)
    if place is not None:
        code = f"\\u{ord(text[place]):04x}"
        raise UserError(f"{where}: lone surrogate {code} at character {place}, half of a character", "write the whole character, or none")
    return text


def check_texts(value: object, where: str) -> None:
    """Check every text in a value of mappings and lists, keys included; raises UserError as `check_text`, or where it is too deep."""
    try:
        _check_parts(value, where)
    except RecursionError:
        raise _too_deep(where) from None


def _check_parts(value: object, where: str) -> None:
    if isinstance(value, str):
        check_text(value, where)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            _check_parts(key, where)
            _check_parts(part, f"{where}, {key!s}")
    elif isinstance(value, list | tuple):
        for part in value:
            _check_parts(part, where)


def _too_deep(where: str) -> UserError:
    return UserError(f"{where}: nested too deep", "give it as text, or leave out what is not needed")


def kind(value: object) -> str:
    """Return what a value is, for errors."""
    if value is None:
        return "nothing"
    if value in ([], {}, ""):
        return f"an empty {'text' if value == '' else 'list' if value == [] else 'mapping'}"
    if isinstance(value, Mapping):
        return "a mapping"
    return {"str": "text", "int": "an int"}.get(type(value).__name__, f"a {type(value).__name__}")


def quoted(value: object, limit: int = SHOWN) -> str:
    """Return a value's repr in one line of at most `limit` characters, whatever its repr does."""
    try:
        text = " ".join(repr(value).split())
    except Exception as error:  # a user's object may raise anything
        text = f"<{type(value).__name__}, whose repr raised {type(error).__name__}>"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def number_text(value: int | float | Decimal) -> str:
    """Return a number the shortest way in plain decimals: 7.0 is `7`, 1.50 is `1.5`, 1e-7 is `0.0000001`; the number must be finite."""
    if isinstance(value, int):
        return str(value)
    exact = value if isinstance(value, Decimal) else Decimal(repr(value))
    if exact == exact.to_integral_value():
        return format(exact.quantize(Decimal(1)) if abs(exact) < EXACT_INTEGERS else exact, "f").partition(".")[0]
    return format(exact, "f").rstrip("0")


def is_nan(value: object) -> bool:
    """Return whether a value is NaN, which pandas writes for a missing one."""
    return isinstance(value, float | Decimal) and math.isnan(value)


def jsonable(value: object, where: str) -> Any:
    """Return a row's value as JSON has it: NaN is null, dates are ISO text, decimals numbers.

    Raises:
        UserError: bytes or another type that JSON has no form for, or more levels than Python takes; starts with `where`.

    """
    try:
        return _as_json(value, where)
    except RecursionError:
        raise _too_deep(where) from None


def _as_json(value: object, where: str) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _as_json(part, f"{where}, {key}") for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(part, where) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return float(value) if value.is_finite() else None
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if value is None or isinstance(value, str | int):
        return value
    raise UserError(f"{where}: found {kind(value)}, needs what JSON can hold", "write it as text, for example base64")


def json_text(value: object, where: str) -> str:
    """Return a value as JSON text (see `jsonable`)."""
    try:
        return json.dumps(jsonable(value, where), ensure_ascii=False)
    except RecursionError:
        raise _too_deep(where) from None


def says(text: str, content: str) -> bool:
    """Whether a rendered prompt holds a message's text, white space apart (templates trim)."""
    return content.strip() in text or "".join(content.split()) in "".join(text.split())

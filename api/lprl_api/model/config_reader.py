"""Typed look-ups in a parsed config.json: every error names the key, what was found and what fits."""

import re
from collections.abc import Mapping
from typing import Any

from lprl_api.errors import UserError

_MAX_DIMENSION = 1 << 32
_MISSING = object()
_LAYERS = re.compile(r"layers$|^(?:n_layer|depth)$")
_EXPERTS = re.compile(r"experts$")
MOST_LAYERS, MOST_EXPERTS = 4096, 65536
"""Far beyond any model: what is made for each layer or expert stays within memory."""


def most_of(key: str) -> int | None:
    """Return the largest count that a key of config.json may hold, by its name; None for what counts neither layers nor experts."""
    return MOST_LAYERS if _LAYERS.search(key) else MOST_EXPERTS if _EXPERTS.search(key) else None


def check_counts(document: Mapping[str, Any], where: str) -> None:
    """Refuse a config.json that counts more layers or experts than any model has, at any depth. Raises UserError naming `where` and key."""
    left: list[Any] = [document]
    while left:
        part = left.pop()
        if isinstance(part, list):
            left += part
        for key, value in part.items() if isinstance(part, Mapping) else ():
            most = most_of(key)
            if most is not None and isinstance(value, int) and value > most:
                raise UserError(
                    f"{where}: {key}: got {value if value < 10**30 else 'a number of more than 30 digits'}; needs at most {most}"
                )
            left.append(value)


class Reader:
    """Typed look-ups in a configuration; every error names the key as the user sees it."""

    def __init__(self, values: Mapping[str, Any], prefix: str) -> None:
        self.values, self.prefix = values, prefix

    def error(self, key: str, needs: str) -> UserError:
        """Return the error of a key: what was found and what fits."""
        found = self.values.get(key, _MISSING)
        shown = "missing" if found is _MISSING else f"got {str(found)[:80]!r}"
        return UserError(f"config.json: {self.prefix}{key}: {shown}; needs {needs}")

    def has(self, key: str) -> bool:
        """Return whether the key is present and not null."""
        return self.values.get(key) is not None

    def number(self, key: str, default: int | None = None, *, least: int = 1) -> int:
        """Return a whole number of at least `least`; `default` stands for a missing or null key."""
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < _MAX_DIMENSION:
            raise self.error(key, f"a whole number of at least {least}")
        if (most := most_of(key)) is not None and value > most:
            raise self.error(key, f"at most {most}")
        return value

    def optional(self, key: str) -> int | None:
        """Return a positive number, or None for a missing or null key."""
        return self.number(key) if self.has(key) else None

    def flag(self, key: str, default: bool) -> bool:
        """Return a truth value."""
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, "true or false")
        return value

    def text(self, key: str) -> str | None:
        """Return a text, or None for a missing or null key."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, str):
            raise self.error(key, "a text")
        return value

"""Published config.json files: what matters of them for counting, and in what each name's weights are stored (published.json).

A list by layer is written `{"repeat": [...], "to": N}` or `{"runs": [[kind, times], ...]}`.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple


class Published(NamedTuple):
    """One architecture: the names it was published under, with what they are stored in ("" is high precision)."""

    stored: dict[str, str]
    config: dict[str, Any]
    parameters: int | None
    """Of the language model, counted by transformers' class; None for an architecture whose class is not held and that is refused."""
    towers: int | None

    @property
    def name(self) -> str:
        """The first name."""
        return next(iter(self.stored))


def published() -> list[Published]:
    """Return every file."""
    read = json.loads((Path(__file__).parent / "published.json").read_text())
    return [Published(one["stored"], _whole(one["config"]), one.get("parameters"), one.get("towers")) for one in read]


def _whole(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if set(value) == {"repeat", "to"}:
        return [value["repeat"][layer % len(value["repeat"])] for layer in range(value["to"])]
    if set(value) == {"runs"}:
        return [kind for kind, times in value["runs"] for _ in range(times)]
    return {key: _whole(part) for key, part in value.items()}

"""What a reward judges, and the Protocol of judges."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lprl_api.errors import UserError


@dataclass(frozen=True, slots=True)
class RewardItem:
    """One response to judge."""

    prompt: str
    """Rendered prompt text."""
    response: str
    """Response text without special tokens."""
    label: str | None
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Scorer(Protocol):
    """Turns responses into numbers."""

    def score(self, items: Sequence[RewardItem]) -> list[float]:
        """Return one finite reward per item, in order."""

    def close(self) -> None:
        """End helper processes."""


def finite(value: object, where: str) -> float:
    """Return `value` as a float; raises UserError starting with `where` when it is no finite number."""
    if isinstance(value, bool | int | float) and math.isfinite(value):
        return float(value)
    raise UserError(f"{where} {value!r}, needs a finite number")

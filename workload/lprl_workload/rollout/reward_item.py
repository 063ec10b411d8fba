"""What a reward judges, the Protocol of judges, and what counts as a number."""

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Protocol

from lprl_api.errors import UserError
from lprl_workload.rollout.texts import quoted


@dataclass(frozen=True, slots=True)
class RewardItem:
    """One response to judge."""

    prompt: str
    """Rendered prompt text."""
    response: str
    """Response text without the tokens that end it."""
    label: str | tuple[str, ...] | None
    """What is right; of several texts, any."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    origin: str = ""
    """File and row of the prompt, for errors."""

    @property
    def row(self) -> str:
        """`, for FILE row N` when that is known, for errors."""
        return f", for {self.origin}" if self.origin else ""

    @property
    def answers(self) -> tuple[str, ...]:
        """Labels of which any is right; raises UserError when there is none."""
        if self.label is None:
            raise UserError(f"data.labelKey: a prompt has no label, which this reward compares with{self.row}")
        return (self.label,) if isinstance(self.label, str) else self.label


class Scorer(Protocol):
    """Turns responses into numbers."""

    def score(self, items: Sequence[RewardItem]) -> list[float]:
        """Return one finite reward per item, in order."""

    def close(self) -> None:
        """End helper processes."""


def as_number(value: object) -> float | None:
    """Return a real number as a float, also a NumPy or torch scalar, a Decimal or a Fraction; None for anything else.

    NaN and infinities are returned as such.
    """
    if not isinstance(value, numbers.Real | Decimal) and getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    if not isinstance(value, numbers.Real | Decimal):
        return None
    try:
        return float(value)
    except (OverflowError, ValueError):
        return math.inf


def finite(value: object, where: str, item: RewardItem) -> float:
    """Return `value` as a float; raises UserError starting with `where`, naming the row, when it is no finite number."""
    number = as_number(value)
    if number is not None and math.isfinite(number):
        return number
    raise UserError(f"{where} {quoted(value)}{item.row}, needs a finite number", f"it is a {type(value).__name__}: return one number")

"""The stability guard: a pure function from (state, this step's mismatch) to (new state, what to do).

The baseline is the median of the metric's first `baseline_steps` values. A step is over the limit when the value is above
relative_limit x baseline or above absolute_limit; `patience` such steps in a row trigger the configured action once.
`correct`, `rollback` and `fallback-bf16` are final; `hold` ends when a value is back under the limit.
"""

import math
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal

from lprl_api.spec.topology import Stability
from lprl_api.wire.progress import StabilityReport

NOISE_FLOOR = {"k3": 1e-6, "logprob-diff": 1e-4}
"""A baseline below this counts as this: with equal precisions on both sides the mismatch is rounding noise around 1e-14, and five
times nothing is no drift. Healthy dense runs lie at or above it (docs/numerics.md)."""
GuardState = Literal["measuring", "stable", "drifting", "corrected", "held", "rolled-back", "fallback-bf16"]
Action = Literal["none", "warn", "correct", "hold", "release", "rollback", "fallback-bf16"]


@dataclass(frozen=True, slots=True)
class Guard:
    """Everything the guard remembers; part of every checkpoint."""

    state: GuardState = "measuring"
    first_values: tuple[float, ...] = ()
    over: int = 0
    """Consecutive steps over the limit."""
    since_step: int | None = None
    """First step of the current drift."""
    value: float | None = None
    """Of the newest step; None before the first, and when it was no number."""
    corrected: bool = False
    """Truncated importance sampling was switched on."""

    def baseline(self, settings: Stability) -> float | None:
        """Return the median of the first values, None until there are enough."""
        return median(self.first_values) if len(self.first_values) >= settings.baseline_steps else None

    def limit(self, settings: Stability) -> float | None:
        """Return the lower of the two limits that apply now, in the metric's unit; None when none does."""
        baseline = self.baseline(settings)
        limits = [settings.absolute_limit] if settings.absolute_limit is not None else []
        if settings.relative_limit is not None and baseline is not None:
            limits.append(settings.relative_limit * max(baseline, NOISE_FLOOR[settings.metric]))
        return min(limits) if limits else None

    def report(self, settings: Stability) -> StabilityReport:
        """Return what Progress says of the guard."""
        return StabilityReport(
            state=self.state,
            metric=settings.metric,
            value=self.value,
            baseline=self.baseline(settings),
            limit=self.limit(settings),
            since_step=self.since_step,
        )


def observe(guard: Guard, settings: Stability, step: int, value: float) -> tuple[Guard, Action]:
    """Take one step's mismatch; return the next state and the action to execute now. What is no number is over any limit, or none."""
    is_number = math.isfinite(value)
    first = guard.first_values
    if is_number and len(first) < settings.baseline_steps and guard.state in ("measuring", "stable", "drifting"):
        first = (*first, value)
    guard = replace(guard, first_values=first, value=value if is_number else None)
    limit = guard.limit(settings)
    if is_number and (limit is None or value <= limit):
        return _under(guard, settings)
    over = guard.over + 1
    since = guard.since_step if guard.over and guard.since_step is not None else step
    if guard.state in ("corrected", "rolled-back", "fallback-bf16", "held"):
        return replace(guard, over=over), "none"
    drifting = replace(guard, state="drifting", over=over, since_step=since)
    return (drifting, "none") if over != settings.patience else (acted(drifting, settings.action), settings.action)


def _under(guard: Guard, settings: Stability) -> tuple[Guard, Action]:
    match guard.state:
        case "held":
            return replace(guard, state="stable", over=0, since_step=None), "release"
        case "corrected" | "rolled-back" | "fallback-bf16":
            return replace(guard, over=0), "none"
        case _:
            state: GuardState = "measuring" if guard.baseline(settings) is None else "stable"
            return replace(guard, state=state, over=0, since_step=None), "none"


def before_drift(guard: Guard) -> int:
    """Return the last step before the current drift."""
    return (guard.since_step or 1) - 1


def acted(guard: Guard, action: Action) -> Guard:
    """Return the state after `action` was decided."""
    match action:
        case "correct":
            return replace(guard, state="corrected", corrected=True)
        case "hold":
            return replace(guard, state="held")
        case "rollback":
            return replace(guard, state="rolled-back", corrected=True)
        case "fallback-bf16":
            return replace(guard, state="fallback-bf16")
        case _:
            return guard

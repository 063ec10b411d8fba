"""Typed reductions: how the values of several optimizer steps, or several ranks, become one number of the step."""

import math
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from statistics import fmean, pstdev

from lprl_workload.data import Metrics


class Reduction(Enum):
    """What becomes of a metric measured several times in one step."""

    MEAN = "mean"
    MAX = "max"
    SUM = "sum"
    LAST = "last"


REDUCTIONS: Mapping[str, Reduction] = {
    "learning_rate": Reduction.LAST,
    "logprob_diff_max": Reduction.MAX,
    "skipped_steps": Reduction.SUM,
}
"""Reduction by metric name. Names not listed here are means."""


def reduce_one(reduction: Reduction, values: Sequence[float]) -> float:
    """Return the reduced value of a non-empty sequence."""
    match reduction:
        case Reduction.MEAN:
            return fmean(values)
        case Reduction.MAX:
            return max(values)
        case Reduction.SUM:
            return float(sum(values))
        case Reduction.LAST:
            return values[-1]


def reduce_metrics(parts: Iterable[Metrics]) -> Metrics:
    """Merge the metrics of the optimizer steps of one rollout step; a name missing in some parts is reduced over the others."""
    values: dict[str, list[float]] = {}
    for part in parts:
        for name, value in part.items():
            values.setdefault(name, []).append(value)
    return {name: reduce_one(REDUCTIONS.get(name, Reduction.MEAN), found) for name, found in values.items()}


def finite(value: float | None) -> float | None:
    """Return a number as it is reported: JSON has no NaN and no infinity."""
    return value if value is not None and math.isfinite(value) else None


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and population standard deviation; (0, 0) of nothing."""
    return (fmean(values), pstdev(values)) if values else (0.0, 0.0)

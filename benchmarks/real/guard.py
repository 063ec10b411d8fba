"""The stability guard over recorded runs: every step's K3 goes through its own code with the default settings, as in a job."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lprl_api.spec.topology import Stability
from lprl_workload.metrics.stability import Guard, observe

COLUMNS = ("pair", "seed", "step", "reward", "k3", "logprob_diff", "entropy")
HEAD = (
    "| training / rollout | seed | mean K3 | p99 | max | baseline | limit | steps over it | alarm |\n|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True, slots=True)
class Replay:
    """What the guard makes of one run."""

    pair: str
    seed: int
    mean: float
    p99: float
    largest: float
    baseline: float
    limit: float
    over: int
    """Steps above the limit that held at that step."""
    alarm: int | None
    """Step of the first alarm."""

    def row(self) -> str:
        """Return the run as a row below HEAD."""
        figures = (self.mean, self.p99, self.largest, self.baseline, self.limit)
        alarm = "none" if self.alarm is None else f"step {self.alarm}"
        return f"| {self.pair} | {self.seed} | {' | '.join(f'{value:.1e}' for value in figures)} | {self.over} | {alarm} |"


def replay(pair: str, seed: int, values: Sequence[float], settings: Stability | None = None) -> Replay:
    """Return what the guard says of a run's metric, step by step."""
    rules, guard, over, alarm = settings or Stability(), Guard(), 0, None
    for step, value in enumerate(values, start=1):
        guard, action = observe(guard, rules, step, value)
        limit = guard.limit(rules)
        over += limit is not None and value > limit
        if action != "none" and alarm is None:
            alarm = step
    baseline, limit = guard.baseline(rules), guard.limit(rules)
    assert baseline is not None and limit is not None, f"{pair}: {len(values)} steps make no baseline"
    ordered = sorted(values)
    p99 = ordered[max(0, round(0.99 * len(ordered)) - 1)]
    return Replay(pair, seed, sum(values) / len(values), p99, ordered[-1], baseline, limit, over, alarm)


def recorded(path: Path, column: str) -> Iterator[tuple[str, int, list[float]]]:
    """Yield (pair, seed, values of `column`) of every run of a steps.csv."""
    runs: dict[tuple[str, int], list[float]] = {}
    with path.open(newline="") as lines:
        for row in csv.DictReader(lines):
            runs.setdefault((row["pair"], int(row["seed"])), []).append(float(row[column]))
    for (pair, seed), values in runs.items():
        yield pair, seed, values


def table(path: Path) -> str:
    """Return the table of every run of a steps.csv."""
    return "\n".join([HEAD, *(replay(*run).row() for run in recorded(path, "k3"))])

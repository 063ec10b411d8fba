"""What is served: when it is verified fully, what a returning engine gets, and what becomes of weights that arrive damaged."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from lprl_api.model.formats import Bf16, Fp8Block, Int4Group, WeightFormat
from lprl_workload.data import SamplingParams, SyncReport
from lprl_workload.process.errors import EngineLostError, WeightMismatchError
from lprl_workload.rl.recovery import Budget
from lprl_workload.rl.serving import Serving
from lprl_workload.rollout.pool import Keeper
from lprl_workload.sync.probe import comparable


class Engines:
    """The engines' side of Both."""

    def __init__(self, both: "Both") -> None:
        self._both = both

    def probe(self, ids: Sequence[int]) -> list[tuple[float, ...]]:
        self._both.journal.append("probe")
        return [(-weight,) * (len(ids) - 1) for _, weight in self._both.engines]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._both, name)


@dataclass
class Both:
    """Trainer and engines at once: a weight is a number, an engine holds (version, weight)."""

    weight: float = 1.0
    engines: list[tuple[int, float]] = field(default_factory=lambda: [(-1, 0.0), (-1, 0.0)])
    lost: set[int] = field(default_factory=set)
    admitted: set[int] = field(default_factory=set)
    journal: list[str] = field(default_factory=list)
    refusals: list[Exception] = field(default_factory=list)
    held: tuple[int, float] = (-1, 0.0)
    spoilt: float = 0.0
    """Added to what the next push brings: arrived, but not what was sent."""
    far: float = 0.0
    """How far the trainer's own log-probabilities lie from what the engines find with equal weights."""

    def push(self, version: int, strong: bool = False) -> SyncReport:
        self.journal.append(f"push v{version}{' strong' if strong else ''}")
        self.held = (version, self.weight)
        if self.refusals:
            raise self.refusals.pop(0)
        spoilt, self.spoilt = self.spoilt, 0.0
        self.engines = [(version, self.weight + spoilt) if found < version else (found, w) for found, w in self.engines]
        return SyncReport(version, 1, 8, 0.0, 0.0, "checksum" if strong else "counts")

    def probe(self, ids: Sequence[int]) -> tuple[float, ...]:
        return (-self.weight - self.far,) * (len(ids) - 1)

    def holds(self, version: int) -> bool:
        return self.held == (version, self.weight)

    def copy_version(self, version: int) -> bool:
        peers = [engine for engine in self.engines if engine[0] == version]
        self.journal.append(f"copy v{version}" if peers else "no peer")
        if peers:
            self.engines = [peers[0] if found < version else (found, w) for found, w in self.engines]
        return bool(peers)

    @property
    def living(self) -> int:
        return len(self.admitted)

    def admit(self) -> None:
        self.admitted = set(range(len(self.engines)))

    def replace_lost(self) -> list[int]:
        lost, self.lost = self.lost, set()
        for number in lost:
            self.engines[number] = (-1, 0.0)
        return sorted(lost)

    def generate(self, requests: Any, params: Any, keeper: Keeper) -> list[Any]:
        for number in sorted(self.lost & self.admitted):
            self.admitted.remove(number)
            keeper.lost(EngineLostError(number, "killed"), self.living)
        if not self.living:
            keeper.none_left()
        taking = {self.engines[number] for number in self.admitted}
        assert len(taking) == 1, "engines serve different weights"
        self.journal.append(f"generate {taking.pop()}")
        return []


BF16 = Bf16()
PARAMS = SamplingParams(1.0, 1.0, None, 4)


def serving(both: Any, every: int = 3, fmt: WeightFormat = BF16, trained: WeightFormat | None = None) -> Serving:
    engines: Any = Engines(both)
    return Serving(both, engines, Budget("engines", 9), fmt, 50, every, trained=trained)


def test_the_first_and_every_nth_push_are_verified_fully() -> None:
    both = Both()
    made = serving(both)
    for version in range(8):
        made.push(version)
    strong = [line for line in both.journal if "strong" in line]
    assert strong == ["push v0 strong", "push v3 strong", "push v6 strong"]
    assert both.journal.count("probe") == 3


def test_a_returning_engine_gets_the_served_version_from_its_peer() -> None:
    both = Both()
    made = serving(both)
    made.push(4)
    both.weight, both.lost = 2.0, {1}
    made.generate([], PARAMS)
    assert "generate (4, 1.0)" in both.journal, "the other goes on"
    assert both.journal.index("copy v4") < len(both.journal) - 1 - both.journal[::-1].index("probe"), "probed before it takes work"
    assert both.engines == [(4, 1.0), (4, 1.0)] and both.living == 2 and made.budget.total == 1


def test_without_a_peer_unchanged_weights_are_pushed_under_their_number() -> None:
    both = Both()
    made = serving(both)
    made.push(4)
    both.lost = {0, 1}
    made.generate([], PARAMS)
    assert "push v4 strong" in both.journal and both.journal[-1] == "generate (4, 1.0)"


def test_newer_weights_never_go_out_under_an_old_number() -> None:
    both = Both()
    made = serving(both)
    made.push(4)
    both.weight, both.lost = 2.0, {0, 1}
    made.generate([], PARAMS)
    assert both.journal[-1] == "generate (5, 2.0)" and made.pushed == 5


def test_the_push_after_a_recovery_is_verified_fully() -> None:
    both = Both()
    made = serving(both, every=1000)
    made.push(0)
    both.refusals = [EngineLostError(1, "killed")]
    made.push(1)
    assert [line for line in both.journal if line.startswith("push")] == ["push v0 strong", "push v1", "push v1 strong"]


@pytest.mark.parametrize("found", ["refused", "probe"])
def test_weights_that_did_not_arrive_whole_are_sent_once_more_and_never_served(found: str) -> None:
    both = Both()
    made = serving(both)
    made.push(0)
    made.doubtful = True
    if found == "refused":
        both.refusals = [WeightMismatchError("x")]
    else:
        both.spoilt = 7.0
    report = made.push(1)
    assert (report.version, report.checked) == (2, "checksum")
    made.generate([], PARAMS)
    assert both.journal[-1] == "generate (2, 1.0)"


def test_weights_refused_twice_end_the_attempt() -> None:
    both = Both(refusals=[WeightMismatchError("one"), WeightMismatchError("two")])
    with pytest.raises(WeightMismatchError, match="two"):
        serving(both).push(0)


@pytest.mark.parametrize(
    ("served", "trained", "asked"),
    [
        (Int4Group(), Bf16(), False),  # 0.9 to 1.5 nats a token on a real model, and nothing is wrong
        (Bf16(), Int4Group(), False),  # after the guard's fallback
        (Int4Group(), Int4Group(), True),
        (Fp8Block(), Bf16(), True),
        (Bf16(), Bf16(), True),
    ],
)
def test_the_trainer_judges_the_probe_only_where_both_or_neither_compute_with_int4(
    served: WeightFormat, trained: WeightFormat, asked: bool
) -> None:
    assert comparable(served, trained) is asked
    both = Both(far=5.0)
    made = serving(both, fmt=served, trained=trained)
    if asked:
        with pytest.raises(WeightMismatchError, match="engine 0 and the trainer differ"):
            made.push(0)
    else:
        made.push(0)
        assert both.journal.count("probe") == 1  # engines are still compared with each other

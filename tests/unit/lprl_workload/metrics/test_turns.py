"""The interval of progress reports is kept: routine waits, news go at once, and even news are bounded. A fake clock counts writes."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from lprl_api.checkpoint_ref import CheckpointRef
from lprl_api.wire.progress import Progress, StabilityReport
from lprl_workload.metrics.progress import Reporter
from lprl_workload.metrics.turns import BURST, Turns

FIRST = Progress(attempt=1, sequence=0, phase="starting", step=0, steps=4000)
PHASES = ("generating", "training", "syncing", "generating")


class Driver:
    """A driver and its reporter on a fake clock; `writes` are the times of its reports."""

    def __init__(self, interval_s: float) -> None:
        self.turns, self.now, self.progress = Turns(interval_s), 0.0, FIRST
        self.writes: list[float] = []
        self.tell()

    def tell(self) -> None:
        if self.turns.wait_s(self.now) == 0:
            self.turns.reported(self.now)
            self.writes.append(self.now)

    def change(self, **changes: Any) -> None:
        before, self.progress = self.progress, Progress.model_validate({**self.progress.model_dump(), **changes})
        self.turns.changed(before, self.progress)
        self.tell()

    def pass_time(self, seconds: float, tick: float = 0.01) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += min(tick, end - self.now)
            self.tell()

    def step(self, seconds: float, **changes: Any) -> None:
        for phase in PHASES:
            self.change(phase=phase)
            self.pass_time(seconds / len(PHASES))
        self.change(step=self.progress.step + 1, reward=0.5, **changes)

    def since(self, start: float) -> int:
        return sum(at >= start for at in self.writes)


@pytest.mark.parametrize("step_s", [0.07, 0.5, 2.0, 40.0])
def test_routine_phases_of_any_speed_write_once_an_interval(step_s: float) -> None:
    driver = Driver(15.0)
    driver.change(phase="loading")
    driver.pass_time(15.0)
    start = driver.now
    while driver.now < start + 150:
        driver.step(step_s)
    assert 8 <= driver.since(start) <= (driver.now - start) / 15 + 1


def checkpoint(step: int) -> CheckpointRef:
    return CheckpointRef(step=step, path=f"c:checkpoints/j/step-{step:06d}")


NEWS: dict[str, Callable[[int], dict[str, Any]]] = {
    "training begins": lambda n: {"phase": "loading"},
    "a checkpoint": lambda n: {"checkpoint": checkpoint(n)},
    "an export": lambda n: {"export": f"c:{n}"},
    "drift": lambda n: {"stability": StabilityReport(state="drifting" if n % 2 else "stable")},
    "another precision": lambda n: {"effective_rollout": "bf16" if n % 2 else "fp8"},
    "a lost engine": lambda n: {"engine_restarts": n},
    "a lost trainer": lambda n: {"trainer_restarts": n, "message": "trainer lost"},
    "steps raised as asked": lambda n: {"steps": 4000 + n},
    "the end": lambda n: {"phase": "finished"},
    "a suspension": lambda n: {"phase": "stopping", "message": "suspended"},
}


@pytest.mark.parametrize("what", NEWS)
def test_news_go_at_once(what: str) -> None:
    driver = Driver(15.0)
    driver.pass_time(1.0)
    told = len(driver.writes)
    driver.change(**NEWS[what](1))
    driver.pass_time(0.3)
    assert len(driver.writes) == told + 1


@pytest.mark.parametrize("what", ["a checkpoint", "drift", "a lost engine", "steps raised as asked", "another precision"])
def test_news_without_end_are_bounded_too(what: str) -> None:
    driver = Driver(15.0)
    driver.pass_time(20.0)
    start = driver.now
    for number in range(1, 3001):  # ten a second for five minutes
        driver.change(**NEWS[what](number))
        driver.pass_time(0.1)
    assert driver.since(start) <= BURST + 2 * 300 / 15 + 1
    assert driver.turns.wait_s(driver.now) <= 15.0


def test_what_changes_while_news_wait_is_told_with_them() -> None:
    driver = Driver(15.0)
    for number in range(1, 50):
        driver.change(checkpoint=checkpoint(number))
    driver.pass_time(15.1)
    assert driver.turns.wait_s(driver.now) > 0
    assert driver.writes[-1] > 0, "the last checkpoint was told within an interval"


def test_a_reporter_writes_as_seldom_as_its_turns_say() -> None:
    class Store:
        writes = 0

        def exchange(self, progress: str) -> str | None:
            self.writes += 1
            return None

    store = Store()
    reporter = Reporter(store, FIRST, 30.0)
    reporter.phase("loading")
    deadline = time.monotonic() + 1.0
    step = 0
    while time.monotonic() < deadline:
        step += 1
        for phase in PHASES:
            reporter.phase(phase)  # type: ignore[arg-type]
        reporter.update(step=step, reward=0.1)
        time.sleep(0.02)
    assert store.writes <= 2, "first report and the beginning"
    reporter.close()
    assert store.writes <= 3

"""Pace: what cannot wait is soon, what can takes turns, and a thousand jobs cost no more looks than a hundred."""

import pytest

from lprl_operator.decide.observed import Key
from lprl_operator.pace import MAX_PAUSE_S, MAX_STARTING_S, ROUTINE_PER_S, SHORTEST_S, STARTING_PER_S, Pace

TOY = Key("ns", "toy")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def pace(starting: int = 0, unfinished: int = 1) -> tuple[Pace, Clock]:
    clock = Clock()
    return Pace(lambda: starting, lambda: unfinished, clock), clock


@pytest.mark.parametrize(
    ("starting", "want"),
    [
        pytest.param(0, 0.0, id="nothing-starts"),
        pytest.param(1, 0.01, id="one-starts"),
        pytest.param(1000, MAX_PAUSE_S, id="never-longer-than-this"),
    ],
)
def test_urgent_news_wait_only_for_what_comes_with_them(starting: int, want: float) -> None:
    found, _ = pace(starting, unfinished=1000)
    found.looked(TOY)
    assert found.after_news(TOY, urgent=True, starting=True) == want


def test_routine_news_of_one_job_wait_a_second_at_most_and_no_less() -> None:
    found, _ = pace(starting=1)
    found.looked(TOY)
    assert found.after_news(TOY, urgent=False, starting=False) == SHORTEST_S == 1.0, "one report, one status write: never ten a second"
    assert found.after_news(TOY, urgent=False, starting=True) <= 0.51


def test_routine_news_of_many_take_turns() -> None:
    found, clock = pace(unfinished=1000)
    assert found.after_news(TOY, urgent=False, starting=False) == 0.0, "never looked at: nothing to wait for"
    found.looked(TOY)
    assert found.after_news(TOY, urgent=False, starting=False) == 1000 / ROUTINE_PER_S
    clock.now += 60
    assert found.after_news(TOY, urgent=False, starting=False) == 1000 / ROUTINE_PER_S - 60
    clock.now += 60
    assert found.after_news(TOY, urgent=False, starting=False) == 0.0


def test_one_that_starts_among_a_thousand_that_run_is_told_at_once() -> None:
    found, _ = pace(starting=1, unfinished=1000)
    found.looked(TOY)
    assert found.after_news(TOY, urgent=False, starting=True) == 1 / STARTING_PER_S
    assert found.by_time(1.0, starting=True) == 1.0
    assert not found.is_crowded()


def test_waits_are_stretched_only_while_a_cluster_starts_and_never_by_much() -> None:
    few, _ = pace(starting=2, unfinished=5)
    many, _ = pace(starting=1000, unfinished=1000)
    assert few.by_time(1.0, starting=True) == 1.0
    assert many.by_time(1.0, starting=False) == 1.0
    assert many.by_time(1.0, starting=True) == MAX_STARTING_S
    assert many.by_time(300.0, starting=True) == 300.0
    assert many.is_crowded()


def test_a_job_that_is_gone_is_forgotten() -> None:
    found, _ = pace(unfinished=1000)
    found.looked(TOY)
    found.forget(TOY)
    assert found.after_news(TOY, urgent=False, starting=False) == 0.0

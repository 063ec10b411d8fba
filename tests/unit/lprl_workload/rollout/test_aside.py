"""Engines that are aside, and how busy a run's engines were."""

import pytest

from lprl_workload.rl.together import Busy
from lprl_workload.rollout.aside import Aside
from lprl_workload.rollout.pool import Pool


def pools(count: int = 3) -> tuple[list[str], Pool[str], Aside[str]]:
    engines, pool = [f"engine {n}" for n in range(count)], Pool[str](1000)
    pool.admit(engines)
    return engines, pool, Aside(pool)


def taken(pool: Pool[str], count: int = 6) -> set[str]:
    return {seat.engine for seat in (pool.take(1) for _ in range(count)) if seat is not None}


def test_batches_are_dealt_to_the_others_until_they_are_taken_back() -> None:
    engines, pool, aside = pools()
    assert aside.set(engines, 1) == 1
    assert taken(pool) == {"engine 0", "engine 1"} and taken(aside.pool) == {"engine 2"} and aside.others(engines) == [0, 1]
    pool.admit(engines, aside.numbers(engines))  # a push passed it by
    assert taken(pool) == {"engine 0", "engine 1"}
    aside.end(engines, work=False)
    assert aside.others(engines) == [0, 1, 2] and taken(pool) == {"engine 0", "engine 1"}, "it needs the next push"
    pool.admit(engines)
    assert taken(pool, 20) == set(engines)


def test_taken_back_with_the_newest_weights_they_work_at_once() -> None:
    engines, pool, aside = pools()
    aside.set(engines, 2)
    aside.end(engines, work=True)
    assert taken(pool, 20) == set(engines)


@pytest.mark.parametrize(("engines", "asked", "found"), [(3, 5, 2), (1, 1, 0), (2, 0, 0)])
def test_one_engine_is_always_left_for_batches(engines: int, asked: int, found: int) -> None:
    all_of_them, pool, aside = pools(engines)
    assert aside.set(all_of_them, asked) == found and pool.living == engines - found


def test_a_lost_one_is_known_to_be_lost_and_passed_by_until_it_is_replaced() -> None:
    engines, pool, aside = pools()
    aside.set(engines, 1)
    seat = aside.pool.take(1)
    assert seat is not None and aside.pool.lose(seat)
    assert pool.lost(engines[2]) and not pool.give_up(2, engines[2]), "charged once"
    assert aside.others(engines) == [0, 1]
    aside.end(engines, work=True)
    assert taken(pool) == {"engine 0", "engine 1"}, "never again by itself"
    aside.set(engines, 0)
    engines[2] = "its replacement"
    assert aside.others(engines) == [0, 1, 2]


def test_idle_engines_count_by_their_share_of_all() -> None:
    now = 0.0
    busy = Busy(lambda: now, engines=4)
    with busy.call():
        now = 1.0
        assert busy.seconds == 1.0
        busy.set_aside(1)
        now = 2.0
        assert busy.seconds == 1.75, "the one that is aside has nothing to do"
        with busy.call(aside=True):
            now = 3.0
        busy.set_aside(0)
        now = 4.0
    now = 9.0
    assert busy.seconds == 3.75

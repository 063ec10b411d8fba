"""Which process of a call is given up, and when: answers are no movement, and ranks wait for each other."""

import socket

import pytest

from lprl_api.spec.topology import RolloutLayout
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.config import RankInfo
from lprl_workload.launch.ray_link import LATE_VERDICT_S
from lprl_workload.launch.stillness import (
    Limits,
    Still,
    Stillness,
    after_failure,
    engine_limits,
    message_seconds,
    rank_limits,
    while_starting,
)
from lprl_workload.sync.transport_broadcast import TELL_S
from lprl_workload.train.group import TIMEOUT, Group

ENGINES, RANKS = Limits(100, 30, together=False), Limits(100, 30, together=True)


def run_of(stall_s: int, health_s: int) -> RunConfig:
    """A RunConfig of which limits alone are said."""
    return RunConfig.model_construct(stall_seconds=stall_s, rollout=RolloutLayout(health_check_seconds=health_s))


def watched(limits, answers, until, every=10):
    """Processes that answer at `every` second until `answers[number][0]`, and move until `answers[number][1]`."""
    stillness = Stillness(limits, 0.0)
    for now in range(every, until + 1, every):
        for number, (answers_until, moves_until) in answers.items():
            if now <= answers_until:
                stillness.heard(number, now <= moves_until, now)
        found = stillness.given_up(list(answers), now)
        if found is not None:
            return now, found
    return None


def test_a_process_that_stops_answering_is_given_up_by_itself():
    assert watched(RANKS, {0: (900, 900), 1: (50, 50)}, 900) == (80, Still(1, "did not answer for 30 s"))


def test_an_engine_that_answers_and_does_not_move_is_given_up_though_others_move():
    assert watched(ENGINES, {0: (900, 900), 1: (900, 40)}, 900) == (140, Still(1, "did not move for 100 s"))


def test_a_rank_that_waits_for_one_that_moves_is_waited_for():
    assert watched(RANKS, {0: (9000, 9000), 1: (9000, 40)}, 9000) is None


def test_of_ranks_that_all_stand_still_the_one_that_stopped_first_is_named():
    """A collective that one of them never enters: the others work up to it, then wait."""
    assert watched(RANKS, {0: (900, 70), 1: (900, 40), 2: (900, 60)}, 900) == (170, Still(1, "did not move for 100 s, nor did the others"))


def test_hours_in_which_something_moves_are_waited_for():
    assert watched(ENGINES, {0: (36000, 36000)}, 36000, every=25) is None


def test_processes_that_load_have_minutes_to_import_however_short_a_stall_is():
    assert watched(while_starting(RANKS), {0: (0, 0)}, 250) is None
    assert watched(while_starting(RANKS), {0: (0, 0)}, 900) == (300, Still(0, "did not answer for 300 s"))


@pytest.mark.parametrize("stall_s", [36, 120, 300, 1800, 7200, 86400])
@pytest.mark.parametrize("health_s", [1, 30, 600])
def test_an_engine_that_hangs_in_a_push_is_found_before_the_trainer_is_blamed_for_waiting(stall_s: int, health_s: int) -> None:
    run = run_of(stall_s, health_s)
    engine, rank = engine_limits(run, in_push=True), rank_limits(run)
    late = after_failure(engine)
    assert late is not None and engine.still_s < rank.still_s
    assert message_seconds(run) + late.still_s < rank.still_s, "a broadcast that breaks off, and then the search for who is to blame"
    assert late.still_s + TELL_S < LATE_VERDICT_S, "the rank that knows the engine is heard, though another failed first"
    assert message_seconds(run) < engine.still_s, "whoever waits at a meeting leaves it by itself, and is not taken for the one that hangs"


def test_ranks_and_processes_that_load_are_not_blamed_when_a_neighbour_fails() -> None:
    assert after_failure(RANKS) is None and after_failure(while_starting(ENGINES)) is None


@pytest.mark.parametrize("stall_s", [36, 1800, 7200])
def test_a_rank_waits_for_another_at_a_vote_longer_than_that_one_waits_for_an_engine(stall_s: int, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: dict[str, float] = {}
    monkeypatch.setattr("torch.distributed.init_process_group", lambda *_, timeout, **__: waits.update(train=timeout.total_seconds()))
    monkeypatch.setattr("torch.distributed.new_group", lambda timeout: waits.update(vote=timeout.total_seconds()))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    Group(RankInfo(0, 2, "cpu", "127.0.0.1", port), stall_s).peers()
    run = run_of(stall_s, 30)
    assert engine_limits(run, in_push=True).still_s < waits["vote"] <= rank_limits(run).still_s
    assert waits["train"] >= max(stall_s, TIMEOUT.total_seconds()), "a collective that hangs is found by whoever watches the ranks"

"""Which process of a call is given up, and when: answers are no movement, and ranks wait for each other."""

from lprl_workload.launch.stillness import Limits, Still, Stillness, while_starting

ENGINES, RANKS = Limits(100, 30, together=False), Limits(100, 30, together=True)


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
    assert watched(RANKS, {0: (900, 70), 1: (900, 40), 2: (900, 60)}, 900) == (170, Still(1, "did not move for 100 s"))


def test_hours_in_which_something_moves_are_waited_for():
    assert watched(ENGINES, {0: (36000, 36000)}, 36000, every=25) is None


def test_processes_that_load_have_minutes_to_import_however_short_a_stall_is():
    assert watched(while_starting(RANKS), {0: (0, 0)}, 250) is None
    assert watched(while_starting(RANKS), {0: (0, 0)}, 900) == (300, Still(0, "did not answer for 300 s"))

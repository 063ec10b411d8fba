"""What moved, and what is told of it."""

import json
import time

from lprl_api.wire.progress import Progress
from lprl_workload.metrics.progress import Reporter
from lprl_workload.process.movement import Moved, Movement


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_is_done_is_told_with_how_much_of_it_and_for_how_long_nothing_moved():
    clock = Clock()
    movement = Movement(clock)
    movement.finished(7)  # of something before
    movement.begin("generation", 64, "responses")
    movement.finished(12)
    clock.now += 300
    told = movement.told()
    assert (told["waits_for"], told["still_seconds"]) == ("generation, 12 of 64 responses", 300.0)
    movement.tick()
    assert movement.told()["moved"] == told["moved"] + 1 and movement.told()["still_seconds"] == 0.0


def test_what_actors_say_of_themselves_is_followed_and_an_equal_answer_moves_nothing():
    clock = Clock()
    movement = Movement(clock)
    movement.begin("generation", 8, "responses")
    assert movement.follow("engine 0", Moved(40, 2))
    assert movement.follow("engine 1", Moved(10, 1))
    clock.now += 50
    assert not movement.follow("engine 0", Moved(40, 2))
    assert movement.told()["still_seconds"] == 50.0 and movement.text() == "generation, 3 of 8 responses"


def test_a_replaced_actor_counts_from_its_own_beginning():
    movement = Movement()
    movement.begin("generation", 8, "responses")
    movement.follow(0, Moved(900, 5))
    assert movement.follow(0, Moved(3, 0))
    assert movement.text() == "generation, 5 of 8 responses"


class Sent:
    def __init__(self) -> None:
        self.reports: list[dict[str, object]] = []

    def exchange(self, document: str) -> None:
        self.reports.append(json.loads(document))


def test_the_reporter_goes_on_when_the_run_does_not_and_says_so():
    store, movement = Sent(), Movement()
    first = Progress(attempt=1, sequence=0, phase="starting", step=0, steps=9)
    reporter = Reporter(store, first, 0.01, movement=movement)
    reporter.phase("generating")
    movement.begin("generation", 4, "responses")
    movement.finished()
    time.sleep(0.3)
    reporter.close()
    *_, before, last = store.reports
    assert last["sequence"] > before["sequence"] and last["moved"] == before["moved"] > 0
    assert last["stillSeconds"] > 0 and last["waitsFor"] == "generation, 1 of 4 responses"


def test_a_step_moves_the_run_whatever_else_does():
    movement = Movement()
    reporter = Reporter(None, Progress(attempt=1, sequence=0, phase="training", step=0, steps=9), 1.0, movement=movement)
    before = movement.moved.count
    reporter.update(step=1)
    assert movement.moved.count > before
    reporter.close()

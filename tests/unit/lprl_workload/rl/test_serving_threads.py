"""Engines lost while several threads generate and the trainer works: a loss is charged once, the trainer asked when it is free."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tests.unit.lprl_workload.rl.test_serving import PARAMS, Both, serving

from lprl_workload.process.errors import EngineLostError
from lprl_workload.rl.serving import Serving
from lprl_workload.rl.together import DroppedError

LIMIT_S = 180.0


class Beside(Both):
    """Engines of which several threads find at once that none is left."""

    def __init__(self, threads: int = 1) -> None:
        super().__init__()
        self.meet = threading.Barrier(threads, timeout=LIMIT_S)
        self.telling = threading.Lock()
        self.alone = threading.Event()
        """Set once a thread found nobody left."""

    def generate(self, requests: Any, params: Any, keeper: Any) -> list[Any]:
        if self.admitted and self.lost >= self.admitted:
            self.meet.wait()
        with self.telling:
            for number in sorted(self.lost & self.admitted):
                self.admitted.remove(number)
                keeper.lost(EngineLostError(number, "killed"), self.living)
        if not self.living:
            self.alone.set()
            keeper.none_left()
        assert len(set(self.engines)) == 1, "engines serve different weights"
        self.journal.append(f"generate {self.engines[0]}")
        return []

    def replace_lost(self) -> list[int]:
        self.journal.append("replace")
        return super().replace_lost()

    def give_up(self, number: int) -> bool:
        known = number not in self.admitted
        self.admitted.discard(number)
        return not known

    def pause(self) -> None:
        self.journal.append("pause")

    def resume(self) -> None:
        self.journal.append("resume")


def made_ahead(both: Both) -> Serving:
    made = serving(both)
    made.ahead = True
    made.push(4)
    both.journal.clear()
    return made


def in_threads(count: int, action: Callable[[], Any]) -> list[Future[Any]]:
    pool = ThreadPoolExecutor(count)
    found = [pool.submit(action) for _ in range(count)]
    pool.shutdown(wait=False)
    return found


def test_of_two_threads_that_find_no_engine_one_brings_them_back() -> None:
    both = Beside(2)
    made = made_ahead(both)
    both.lost = {0, 1}
    for call in in_threads(2, lambda: made.generate([], PARAMS)):
        call.result(LIMIT_S)
    assert both.journal.count("push v4 strong") == 1 and made.budget.total == 2


def test_engines_without_a_peer_get_their_weights_when_the_trainer_is_free() -> None:
    both = Beside()
    made = made_ahead(both)
    both.lost = {0, 1}
    with made.together.trainer:  # the loop trains
        (call,) = in_threads(1, lambda: made.generate([], PARAMS))
        assert both.alone.wait(LIMIT_S)
        both.journal.append("trained")
        with made.together.loop_waits():
            call.result(LIMIT_S)
    told = [what for what in both.journal if what not in ("no peer", "replace")]
    assert told == ["trained", "pause", "push v4 strong", "probe", "resume", "generate (4, 1.0)"]


def test_engines_that_the_loops_own_push_reached_meanwhile_are_not_sent_anything_again() -> None:
    both = Beside()
    made = made_ahead(both)
    both.lost = {0, 1}
    with made.together.trainer:
        (call,) = in_threads(1, lambda: made.generate([], PARAMS))
        assert both.alone.wait(LIMIT_S)
        both.weight = 2.0
        both.refusals = [EngineLostError(0, "killed")]  # as the push finds it
        made.push(5)
        with made.together.loop_waits():
            call.result(LIMIT_S)
    assert [what for what in both.journal if what.startswith("push")] == ["push v5 strong", "push v5 strong"]
    assert made.pushed == 5 and both.engines == [(5, 2.0), (5, 2.0)]
    assert made.budget.total == 2, "each engine once, though the push met one of them as well"


def test_every_version_is_known_by_the_steps_behind_it() -> None:
    made = made_ahead(Beside())
    made.trained_steps = 7
    made.push(9)
    assert made.made == {4: 0, 9: 7}


def test_a_loss_that_a_batch_nobody_wants_meets_is_charged_and_left_to_the_next_push() -> None:
    both = Beside(1)
    made = made_ahead(both)
    dropped = threading.Event()

    def unwanted() -> None:
        made.together.belong(dropped)
        dropped.set()
        made.generate([], PARAMS)

    both.lost = {1}
    (call,) = in_threads(1, unwanted)
    assert isinstance(call.exception(LIMIT_S), DroppedError)
    made._refill.settle()
    assert "replace" not in both.journal and made.budget.total == 1
    both.refusals = [EngineLostError(1, "killed")]  # as the push finds it
    made.push(5)
    assert both.engines == [(5, 1.0), (5, 1.0)] and made.budget.total == 1
    assert both.journal.count("replace") == 1 and both.journal.count("push v5 strong") == 2

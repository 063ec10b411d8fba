"""The held-out evaluations of a run: when one is due, who draws it, and that each is recorded once, under its step.

With `evaluation.engines` 0 all engines draw it and the loop waits. Else that many engines, which serve the weights of the step, are set
aside: batches, pushes and probes pass them by until a thread has drawn and scored the evaluation with them.

    engines      | batch k + 1 | push | batch k + 2 | push |
    one aside    | evaluation after step k |  waits | push |     at once back to batches where no push passed it by
    trainer      | step k + 1  |      | step k + 2  |      |

A checkpoint of a later step waits for it, since it holds no older weights to make it again with: so a run that goes on from one makes
an evaluation that is due there and not recorded, and no other. Results are recorded by the loop's own thread, in the order of steps.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from contextlib import AbstractContextManager

from lprl_api.model.formats import WeightFormat
from lprl_api.wire.progress import DriverPhase, EvaluationResult
from lprl_workload.data import GenerationRequest, SamplingParams
from lprl_workload.episode import Episode, EpisodeRef
from lprl_workload.metrics.progress import Reporter
from lprl_workload.process.errors import EngineLostError
from lprl_workload.process.movement import here
from lprl_workload.rl.evaluation import Evaluator
from lprl_workload.rl.flight import Flight, join
from lprl_workload.rl.records import Records
from lprl_workload.rl.run_state import RunState
from lprl_workload.rl.serving import Serving

log = logging.getLogger(__name__)


class EvaluationLostError(RuntimeError):
    """No engine that is aside is left, or what one drew is gone with its node: nobody serves the weights of that step any more."""


class EnginesAside:
    """The engines of an evaluation that is drawn beside training, and the Keeper of its requests."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def generate(self, requests: Sequence[GenerationRequest], params: SamplingParams) -> list[EpisodeRef]:
        """See Engines. Raises EvaluationLostError."""
        with self._serving.busy.call(aside=True):
            return self._serving.rollout.generate(requests, params, self, aside=True)

    def fetch(self, refs: Sequence[EpisodeRef]) -> list[Episode]:
        """See Engines. Raises EvaluationLostError."""
        try:
            return self._serving.rollout.fetch(refs)
        except EngineLostError as error:
            if self._serving.rollout.give_up(error.engine):
                self._serving.lost(error, 1)
            raise EvaluationLostError(str(error)) from error

    def lost(self, error: EngineLostError, left: int) -> None:
        """Have it replaced, by one that takes batches: its weights are nowhere else. The others draw what it had open."""
        self._serving.lost(error, 1)
        if not left:
            raise EvaluationLostError(str(error)) from error

    def none_left(self) -> None:
        """See Keeper; all were lost in another call."""
        raise EvaluationLostError("no engine is left that serves its weights")


class Evaluations:
    """Of one run; its methods belong to the loop's thread."""

    def __init__(
        self,
        evaluator: Evaluator | None,
        serving: Serving,
        records: Records,
        reporter: Reporter,
        phase: Callable[[DriverPhase], AbstractContextManager[None]],
    ) -> None:
        """`phase`: has the time in it counted and reported as that."""
        self._evaluator, self._serving, self._records, self._reporter, self._phase = evaluator, serving, records, reporter, phase
        self._flight: Flight[EvaluationResult] | None = None
        self._at = -1
        """Step of that."""
        self._owed = False
        """Whether one lost its engines, and is made with the next weights."""
        self._ending = threading.Lock()
        self._threads: list[threading.Thread] = []

    def resume(self, state: RunState, own: bool, last: int) -> None:
        """Make what is due at the state that a run starts from or goes back to, and is not recorded; `own`: of its own checkpoint."""
        if self._evaluator is None:
            return
        recorded, settings = self._records.last_evaluation(), self._evaluator.settings
        if state.step == 0:
            due = settings.at_start and recorded is None
        else:
            missing = recorded is None or recorded.step < state.step
            due = settings.engines > 0 and own and missing and self._due(state.step, last)
        if due and not self._begun(state.step, last):
            self._wait_for(self._evaluator, state.step)

    def before_push(self, step: int, last: int) -> None:
        """Have the engines of the last evaluation take part in the push after `step`, when another is due with its weights."""
        if self._due(step, last):
            self.settle()

    def begin(self, step: int, last: int) -> bool:
        """Begin what is due after `step` beside training, where that is asked for and can be; returns whether it was."""
        return self._evaluator is not None and self._due(step, last) and self._begun(step, last)

    def make(self, step: int, last: int) -> None:
        """Make what is due after `step` with all engines."""
        if self._evaluator is not None and self._due(step, last):
            self._wait_for(self._evaluator, step)

    def look(self) -> None:
        """Record what is done. Raises what ended it."""
        if self._flight is not None and self._flight.made.done():
            self._take(self._flight)

    def settle(self) -> None:
        """Wait for the one under way, and record it."""
        if self._flight is None:
            return
        with self._phase("evaluating"):
            while (flight := self._flight) is not None:  # entering a phase looks as well
                with self._serving.together.loop_waits():
                    wait([flight.made])
                self._take(flight)

    def before_checkpoint(self, step: int, last: int) -> None:
        """Record everything that a checkpoint of `step` has no weights for."""
        if self._at < step:
            self.settle()
        if self._owed and not self._begun(step, last) and self._evaluator is not None:
            self._wait_for(self._evaluator, step)

    def drop(self) -> None:
        """Give up the one under way; `resume` makes it again where it is still due."""
        flight, self._flight, self._owed = self._flight, None, False
        if flight is not None:
            flight.drop()
            flight.end(self._serving.rollout.abort)
            with self._ending:
                self._serving.take_back()

    def close(self) -> None:
        """Give it up for good."""
        self.drop()
        join(self._threads)

    def _due(self, step: int, last: int) -> bool:
        return self._evaluator is not None and (self._owed or step >= last or step % self._evaluator.settings.every_steps == 0)

    def _begun(self, step: int, last: int) -> bool:
        """Begin one in a thread; false where it is the run's last, none is to be set aside, or none can be spared."""
        if self._evaluator is None or step >= last or not self._evaluator.settings.engines:
            return False
        self.settle()
        if not self._serving.set_aside(self._evaluator.settings.engines):
            return False
        self._owed, self._at = False, step
        flight = self._flight = Flight[EvaluationResult](EnginesAside(self._serving))
        told = flight, self._evaluator, step, self._serving.format, self._serving.pushed
        thread = threading.Thread(target=self._fly, args=told, name=f"lprl-evaluation-{step}", daemon=True)
        self._threads = [*(other for other in self._threads if other.is_alive()), thread]
        thread.start()
        return True

    def _fly(self, flight: Flight[EvaluationResult], evaluator: Evaluator, step: int, fmt: WeightFormat, version: int) -> None:
        here.aside()
        self._serving.together.belong(flight.dropped)
        try:
            found = evaluator.evaluate(step, flight, fmt)
            with self._ending:
                if not flight.dropped.is_set():
                    self._serving.take_back()
        except BaseException as error:  # the loop must learn of it, whatever it is
            flight.made.set_exception(error)
            return
        flight.made.set_result(found.model_copy(update={"weight_version": version}))

    def _take(self, flight: Flight[EvaluationResult]) -> None:
        self._flight = None
        try:
            self._record(flight.made.result())
        except EvaluationLostError as lost:
            log.warning("the evaluation after step %d lost its engines (%s); it is made with the next weights", self._at, lost)
            self._owed = True
            self._serving.take_back()

    def _wait_for(self, evaluator: Evaluator, step: int) -> None:
        self.settle()
        self._owed = False
        with self._phase("evaluating"):
            found = self._serving.collecting(lambda: evaluator.evaluate(step, self._serving, self._serving.format))
        self._record(found.model_copy(update={"weight_version": self._serving.pushed}))

    def _record(self, found: EvaluationResult) -> None:
        self._records.evaluation(found)
        self._reporter.update(evaluation=found)

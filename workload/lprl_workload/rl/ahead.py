"""Batches made ahead of the trainer, so that engines and trainer work at the same time.

What a batch is made of never depends on how far ahead it was made: step k has the prompts, seeds and data position that it has in a
run that takes turns. Only the weights that draw it differ: with staleness s the collection of step k begins once step k - 1 - s was
trained and its weights were pushed, so no token of it is drawn by weights that are more than s steps older than those it trains.

    s = 1     engines   |  batch 1  |  batch 2  |  batch 3  |       batch 2 begins with batch 1 (weights of step 0),
              trainer               |  step 1   |  step 2   |       batch 3 once step 1 was pushed; each goes on with newer weights

Each collection runs in a thread of its own; batches are taken in the order of their steps, whole. With dynamic sampling the position
of a batch is known when the one before is done: then they are made one after another, still ahead of the trainer. With s = 0 nothing
of this happens: the loop's own thread collects.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

from lprl_workload.data import GenerationRequest, SamplingParams
from lprl_workload.episode import Episode, EpisodeRef
from lprl_workload.process.movement import here
from lprl_workload.rl.collect import Collected, Collector
from lprl_workload.rl.run_state import RunState
from lprl_workload.rl.serving import Serving
from lprl_workload.rl.together import DroppedError

T = TypeVar("T")
SCORING_S = 30.0
"""How long a run that ends waits for rewards that nobody wants any more."""
ABORT_AGAIN_S = 0.2
"""A request that was on its way when all were aborted is aborted the next time."""


class Flight:
    """The collection of one step, and the engines as it sees them: out of reach once it was given up."""

    def __init__(self, serving: Serving) -> None:
        self.batch: Future[Collected] = Future()
        self.dropped = threading.Event()
        self.open = 0
        """Responses asked for and not there yet."""
        self._serving, self._outside = serving, threading.Condition()
        self._calls = 0

    def generate(self, requests: Sequence[GenerationRequest], params: SamplingParams) -> list[EpisodeRef]:
        """See Engines. Raises DroppedError."""
        return self._inside(len(requests), lambda: self._serving.generate(requests, params))

    def fetch(self, refs: Sequence[EpisodeRef]) -> list[Episode]:
        """See Engines. Raises DroppedError."""
        return self._inside(0, lambda: self._serving.fetch(refs))

    def drop(self) -> int:
        """Give it up; returns how many responses are open."""
        with self._outside:
            self.dropped.set()
            return self.open

    def left(self, seconds: float) -> bool:
        """Wait until it asks nothing of the engines any more; whether that is so in time."""
        with self._outside:
            return self._outside.wait_for(lambda: not self._calls, seconds)

    def _inside(self, count: int, action: Callable[[], T]) -> T:
        with self._counted(count):
            try:
                found = action()
            except Exception as error:
                if self.dropped.is_set():
                    raise DroppedError("the batch was given up") from error
                raise
        if self.dropped.is_set():
            raise DroppedError("the batch was given up")
        return found

    @contextmanager
    def _counted(self, count: int) -> Iterator[None]:
        with self._outside:
            if self.dropped.is_set():
                raise DroppedError("the batch was given up")
            self._calls += 1
            self.open += count
        try:
            yield
        finally:
            with self._outside:
                self._calls -= 1
                self.open -= count
                self._outside.notify_all()


class Ahead:
    """The batches of a run, in order. Its methods belong to the loop's thread."""

    def __init__(self, collector: Collector, serving: Serving, allowed: int) -> None:
        """`allowed`: steps by which weights may be older than those a sample trains; 0 takes turns."""
        self._collector, self._serving, self._allowed = collector, serving, allowed
        self._lock = threading.Lock()
        self._flights: dict[int, Flight] = {}
        self._next: tuple[int, int | None] | None = None
        """Step that is begun next, and the data position it begins at, None while that is not known."""
        self._horizon = 0
        self._threads: list[threading.Thread] = []
        self.dropped = 0
        """Responses that were given up unfinished, since the start of the attempt."""

    def take(self, state: RunState, last: int) -> Collected:
        """Return the batch of the step after `state`; `last` is the last step of the run. Raises what collecting raises."""
        step = state.step + 1
        if not self._allowed:
            return self._serving.collecting(lambda: self._collector.collect(step, state.position, self._serving))
        self.start(state, last)
        with self._serving.together.loop_waits():
            batch = self._flights[step].batch.result()
        with self._lock:
            del self._flights[step]
        return batch

    def start(self, state: RunState, last: int) -> None:
        """Begin what may begin once `state` was trained and pushed."""
        if not self._allowed:
            return
        with self._lock:
            self._horizon = min(last, state.step + 1 + self._allowed)
            if self._next is None:
                self._next = (state.step + 1, state.position)
            self._begin()

    def drop(self) -> None:
        """Give up what was not taken; the run goes on from its state's position, so no prompt is lost by it."""
        with self._lock:
            flights, self._flights, self._next = list(self._flights.values()), {}, None
        self.dropped += sum(flight.drop() for flight in flights)
        for flight in flights:
            while not flight.left(0):
                self._serving.rollout.abort()
                flight.left(ABORT_AGAIN_S)

    def close(self) -> None:
        """Give everything up for good. Threads that still score are waited for: what they hold of Ray must not outlive it."""
        self.drop()
        until = time.monotonic() + SCORING_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _begin(self) -> None:
        """Begin collections up to the horizon, as far as their positions are known; under the lock."""
        assert self._next is not None
        step, position = self._next
        while position is not None and step <= self._horizon:
            flight = self._flights[step] = Flight(self._serving)
            thread = threading.Thread(target=self._fly, args=(flight, step, position), name=f"lprl-step-{step}", daemon=True)
            self._threads = [*(other for other in self._threads if other.is_alive()), thread]
            thread.start()
            step, position = self._next = (step + 1, self._collector.after(position))

    def _fly(self, flight: Flight, step: int, position: int) -> None:
        here.aside()
        self._serving.together.belong(flight.dropped)
        try:
            batch = self._serving.collecting(lambda: self._collector.collect(step, position, flight))
            with self._lock:
                if not flight.dropped.is_set() and self._next == (step + 1, None):
                    self._next = (step + 1, batch.position)
                    self._begin()
        except BaseException as error:  # the loop must learn of it, whatever it is
            flight.batch.set_exception(error)
            return
        flight.batch.set_result(batch)

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
from collections.abc import Callable
from concurrent.futures import wait

from lprl_workload.process.movement import here
from lprl_workload.rl.collect import Collected, Collector
from lprl_workload.rl.flight import Flight, join
from lprl_workload.rl.run_state import RunState
from lprl_workload.rl.serving import Serving
from lprl_workload.rl.together import LOOK_S


class Ahead:
    """The batches of a run, in order. Its methods belong to the loop's thread."""

    def __init__(self, collector: Collector, serving: Serving, allowed: int) -> None:
        """`allowed`: steps by which weights may be older than those a sample trains; 0 takes turns."""
        self._collector, self._serving, self._allowed = collector, serving, allowed
        self._lock = threading.Lock()
        self._flights: dict[int, Flight[Collected]] = {}
        self._next: tuple[int, int | None] | None = None
        """Step that is begun next, and the data position it begins at, None while that is not known."""
        self._horizon = 0
        self._threads: list[threading.Thread] = []
        self.dropped = 0
        """Responses that were given up unfinished, since the start of the attempt."""

    def take(self, state: RunState, last: int, ends: Callable[[], bool]) -> Collected | None:
        """Return the batch of the step after `state`; `last` is the last step of the run. Raises what collecting raises.

        None when the run is to end (`ends`) while a batch made ahead is waited for: it is given up with the others.
        """
        step = state.step + 1
        if not self._allowed:
            return self._serving.collecting(lambda: self._collector.collect(step, state.position, self._serving))
        self.start(state, last)
        batch = self._flights[step].made
        with self._serving.together.loop_waits():
            while not wait([batch], LOOK_S).done:
                if ends():
                    return None
        taken = batch.result()
        with self._lock:
            del self._flights[step]
        return taken

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
            flight.end(self._serving.rollout.abort)

    def close(self) -> None:
        """Give everything up for good. Threads that still score are waited for: what they hold of Ray must not outlive it."""
        self.drop()
        join(self._threads)

    def _begin(self) -> None:
        """Begin collections up to the horizon, as far as their positions are known; under the lock."""
        assert self._next is not None
        step, position = self._next
        while position is not None and step <= self._horizon:
            flight = self._flights[step] = Flight[Collected](self._serving)
            thread = threading.Thread(target=self._fly, args=(flight, step, position), name=f"lprl-step-{step}", daemon=True)
            self._threads = [*(other for other in self._threads if other.is_alive()), thread]
            thread.start()
            step, position = self._next = (step + 1, self._collector.after(position))

    def _fly(self, flight: Flight[Collected], step: int, position: int) -> None:
        here.aside()
        self._serving.together.belong(flight.dropped)
        try:
            batch = self._serving.collecting(lambda: self._collector.collect(step, position, flight))
            with self._lock:
                if not flight.dropped.is_set() and self._next == (step + 1, None):
                    self._next = (step + 1, batch.position)
                    self._begin()
        except BaseException as error:  # the loop must learn of it, whatever it is
            flight.made.set_exception(error)
            return
        flight.made.set_result(batch)

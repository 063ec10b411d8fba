"""What a thread makes beside the loop, and the engines as it sees them: out of reach once nobody wants it any more."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Generic, TypeVar

from lprl_workload.data import GenerationRequest, SamplingParams
from lprl_workload.episode import Episode, EpisodeRef
from lprl_workload.rl.collect import Engines
from lprl_workload.rl.together import DroppedError

T = TypeVar("T")
R = TypeVar("R")
SCORING_S = 30.0
"""How long a run that ends waits for rewards that nobody wants any more."""
ABORT_AGAIN_S = 0.2
"""A request that was on its way when all were aborted is aborted the next time."""


class Flight(Generic[R]):
    """The collection of one step, or an evaluation."""

    def __init__(self, engines: Engines) -> None:
        self.made: Future[R] = Future()
        self.dropped = threading.Event()
        self.open = 0
        """Responses asked for and not there yet."""
        self._engines, self._outside = engines, threading.Condition()
        self._calls = 0

    def generate(self, requests: Sequence[GenerationRequest], params: SamplingParams) -> list[EpisodeRef]:
        """See Engines. Raises DroppedError."""
        return self._inside(len(requests), lambda: self._engines.generate(requests, params))

    def fetch(self, refs: Sequence[EpisodeRef]) -> list[Episode]:
        """See Engines. Raises DroppedError."""
        return self._inside(0, lambda: self._engines.fetch(refs))

    def drop(self) -> int:
        """Give it up; returns how many responses are open."""
        with self._outside:
            self.dropped.set()
            return self.open

    def left(self, seconds: float) -> bool:
        """Wait until it asks nothing of the engines any more; whether that is so in time."""
        with self._outside:
            return self._outside.wait_for(lambda: not self._calls, seconds)

    def end(self, abort: Callable[[], None]) -> None:
        """Have engines give up, by `abort`, what it still asks of them; it was dropped before."""
        while not self.left(0):
            abort()
            self.left(ABORT_AGAIN_S)

    def _inside(self, count: int, action: Callable[[], T]) -> T:
        with self._counted(count):
            try:
                found = action()
            except Exception as error:
                if self.dropped.is_set():
                    raise DroppedError("nobody wants it any more") from error
                raise
        if self.dropped.is_set():
            raise DroppedError("nobody wants it any more")
        return found

    @contextmanager
    def _counted(self, count: int) -> Iterator[None]:
        with self._outside:
            if self.dropped.is_set():
                raise DroppedError("nobody wants it any more")
            self._calls += 1
            self.open += count
        try:
            yield
        finally:
            with self._outside:
                self._calls -= 1
                self.open -= count
                self._outside.notify_all()


def join(threads: Iterable[threading.Thread]) -> None:
    """Wait for threads that may still score, some time: what they hold of Ray must not outlive the run."""
    until = time.monotonic() + SCORING_S
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))

"""What the loop and the threads that collect ahead of it agree on: whose turn it is, and who was given up.

Two locks. `engines`: pushes and recoveries, one at a time. `trainer`: its ranks take part in one call at a time, in one order; the
loop holds it for the whole run, except while it waits for a batch. Whoever needs both takes `trainer` first.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOOK_S = 0.2
"""How often a thread that waits looks whether it was given up."""


class DroppedError(RuntimeError):
    """Nobody wants this thread's batch any more."""


class Together:
    """Of one run."""

    def __init__(self) -> None:
        self.engines, self.trainer = threading.RLock(), threading.RLock()
        self._own = threading.local()

    def belong(self, dropped: threading.Event) -> None:
        """Say when this thread's work is given up; that of the loop's own thread never is."""
        self._own.dropped = dropped

    def unless_dropped(self) -> None:
        """Raise DroppedError when this thread's work was given up."""
        dropped = getattr(self._own, "dropped", None)
        if dropped is not None and dropped.is_set():
            raise DroppedError("the batch was given up")

    @contextmanager
    def trainers_turn(self) -> Iterator[None]:
        """Wait until the trainer is free, and keep it. Raises DroppedError."""
        while not self.trainer.acquire(timeout=LOOK_S):
            self.unless_dropped()
        try:
            yield
        finally:
            self.trainer.release()

    @contextmanager
    def trainer_if_free(self) -> Iterator[bool]:
        """Keep the trainer if it is free now; whether it was."""
        free = self.trainer.acquire(blocking=False)
        try:
            yield free
        finally:
            if free:
                self.trainer.release()

    @contextmanager
    def loop_waits(self) -> Iterator[None]:
        """For the loop, which holds the trainer: others may have it meanwhile."""
        self.trainer.release()
        try:
            yield
        finally:
            self.trainer.acquire()


class Busy:
    """For how long at least one request was open, over all threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._calls, self._since, self._total = 0, 0.0, 0.0

    @contextmanager
    def call(self) -> Iterator[None]:
        """While requests are open."""
        with self._lock:
            if self._calls == 0:
                self._since = self._clock()
            self._calls += 1
        try:
            yield
        finally:
            with self._lock:
                self._calls -= 1
                if self._calls == 0:
                    self._total += self._clock() - self._since

    @property
    def seconds(self) -> float:
        """Since the start of the run."""
        with self._lock:
            return self._total + (self._clock() - self._since if self._calls else 0.0)

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
    """For how long engines had a request open, over all threads: seconds of the run, weighed by how many of its engines had one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, engines: int = 1) -> None:
        """`engines`: of the run."""
        self._clock, self._lock, self._engines = clock, threading.Lock(), engines
        self._calls, self._calls_aside, self._aside = 0, 0, 0
        self._since, self._total = clock(), 0.0

    @contextmanager
    def call(self, aside: bool = False) -> Iterator[None]:
        """While requests are open, at the engines that are aside or at the others."""
        self._count(aside, 1)
        try:
            yield
        finally:
            self._count(aside, -1)

    def set_aside(self, engines: int) -> None:
        """So many engines do something else than the others from now on."""
        with self._lock:
            self._add()
            self._aside = engines

    @property
    def seconds(self) -> float:
        """Since the start of the run."""
        with self._lock:
            self._add()
            return self._total

    def _count(self, aside: bool, change: int) -> None:
        with self._lock:
            self._add()
            if aside:
                self._calls_aside += change
            else:
                self._calls += change

    def _add(self) -> None:
        now = self._clock()
        busy = (self._engines - self._aside) * (self._calls > 0) + self._aside * (self._calls_aside > 0)
        self._total += (now - self._since) * busy / self._engines
        self._since = now

"""What this process gets done, as one counter that only grows: the difference between a process that lives and a run that moves.

Whatever takes long bumps `here` as it goes: tokens drawn, micro-batches, tensors sent or written, rewards. The driver reports it
(metrics/progress.py) and adds what its actors say of theirs (launch/vigil.py), which they answer beside whatever they are at.
"""

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Moved:
    """Of one process, since its start."""

    count: int
    """Everything that was bumped."""
    finished: int
    """Of that, whole pieces of work: responses, files."""


class Movement:
    """Thread-safe. What is being done, how much of it is done, and when something last moved."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._count, self._finished, self._at = 0, 0, clock()
        self._what, self._of, self._unit, self._before = "", 0, "", 0
        self._seen: dict[Hashable, Moved] = {}
        self._beside = threading.local()

    def aside(self) -> None:
        """What this thread begins from now on moves the run, but is not what the run is said to be at."""
        self._beside.aside = True

    def begin(self, what: str, of: int = 0, unit: str = "") -> None:
        """Say what is done from now on, such as `generation` of 64 `responses`; `of` 0 where it is not counted."""
        with self._lock:
            if not getattr(self._beside, "aside", False):
                self._what, self._of, self._unit, self._before = what, of, unit, self._finished
            self._bump(1)

    def tick(self) -> None:
        """Something got on."""
        with self._lock:
            self._bump(1)

    def finished(self, count: int = 1) -> None:
        """`count` pieces of what was begun are done."""
        with self._lock:
            self._finished += count
            self._bump(max(1, count))

    def follow(self, who: Hashable, moved: Moved) -> bool:
        """Take over what another process says of itself; returns whether it moved since it was last followed."""
        with self._lock:
            # The first answer counts from 0: a process that was started anew began at 0 as well.
            before = self._seen.get(who, Moved(0, 0))
            self._seen[who] = moved
            if moved == before:
                return False
            self._finished += max(0, moved.finished - before.finished)
            self._bump(1)
            return True

    @property
    def moved(self) -> Moved:
        """The counters of this process, followed ones included."""
        with self._lock:
            return Moved(self._count, self._finished)

    def told(self) -> dict[str, object]:
        """Return the fields of Progress: moved, still_seconds, waits_for."""
        with self._lock:
            return {"moved": self._count, "still_seconds": round(max(0.0, self._clock() - self._at), 1), "waits_for": self._text()}

    def text(self) -> str:
        """Return what it is at: `generation, 12 of 64 responses`."""
        with self._lock:
            return self._text()

    def _text(self) -> str:
        if not self._of:
            return self._what
        return f"{self._what}, {min(self._of, self._finished - self._before)} of {self._of} {self._unit}"

    def _bump(self, count: int) -> None:
        self._count += count
        self._at = self._clock()


here = Movement()
"""Of this process."""

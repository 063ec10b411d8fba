"""The thread that works at an engine's open requests, step by step, and hands out what they drew.

The thread lives while there is work: it starts with a request and ends when none is left, or none may be worked at. Everything
that must not meet a step (a weight update, a pause, an abort) waits for the running one and keeps the next from starting.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from lprl_workload.process.movement import here
from lprl_workload.rollout.generation import Row
from lprl_workload.rollout.requests import Chunk
from lprl_workload.rollout.responses import Sink
from lprl_workload.rollout.scheduler import Scheduler

CHUNK_S = 0.2
"""Unfinished responses hand out what they drew this often."""


class Worker:
    """Open requests and their thread; every method may be called from any thread."""

    def __init__(self, scheduler: Scheduler, version: Callable[[], int], barred: Callable[[], bool]) -> None:
        """`version()`: of the weights a step uses; `barred()`: whether the engine may not compute now."""
        self.scheduler, self._version, self._barred = scheduler, version, barred
        self._calm = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stepping = False
        self._wanting = 0
        self._paused = False
        self._open: dict[str, tuple[Row, Sink]] = {}
        self._told = 0.0

    @property
    def counts(self) -> tuple[int, int]:
        """Requests in work and waiting; never waits."""
        running = len(self.scheduler.running)
        return running, max(0, len(self._open) - running)

    @property
    def paused(self) -> bool:
        """Whether `pause` is in force."""
        return self._paused

    def submit(self, row: Row, sink: Sink) -> None:
        """Take a request. Raises ValueError when one of that id is open."""
        with self._calm:
            if row.request.id in self._open:
                raise ValueError(f"request {row.request.id}: one of that id is open already")
            self._open[row.request.id] = (row, sink)
            self.scheduler.add(row)
            self._start()

    def abort(self, ids: Sequence[str] | None) -> None:
        """End requests with what they have drawn."""
        with self.between_steps():
            for row, sink in self._take(ids):
                _give(sink, row.chunk(self._version(), aborted=True))

    def drop(self, ids: Sequence[str]) -> None:
        """Forget requests nobody waits for any more."""
        if any(name in self._open for name in ids):
            with self.between_steps():
                self._take(ids)

    def pause(self, retract: bool) -> None:
        """Work at nothing until `resume`."""
        with self.between_steps():
            self._paused = True
            self._tell()
            if retract:
                self.scheduler.retract()

    def resume(self) -> None:
        """Go on."""
        with self._calm:
            self._paused = False
            self._start()

    def fail(self, error: Exception) -> None:
        """End all requests with an error."""
        with self.between_steps():
            self._fail(error)

    @contextmanager
    def between_steps(self) -> Iterator[None]:
        """Hold between two steps: inside nothing is computed, afterwards work goes on if it may. Tokens of before are handed out."""
        with self._calm:
            self._wanting += 1
            while self._stepping:
                self._calm.wait()
            try:
                self._tell()
                yield
            finally:
                self._wanting -= 1
                self._calm.notify_all()
                self._start()

    def _start(self) -> None:
        if self._thread is None and self._may_step():
            self._thread = threading.Thread(target=self._work, name="lprl-engine", daemon=True)
            self._thread.start()

    def _may_step(self) -> bool:
        return bool(self.scheduler.running or self.scheduler.waiting) and not self._paused and not self._barred()

    def _work(self) -> None:
        while True:
            with self._calm:
                while self._wanting:
                    self._calm.wait()
                if not self._may_step():
                    self._thread = None
                    return
                self._stepping = True
            error, ended = None, list[Row]()
            try:
                ended = self.scheduler.step()
            except Exception as found:  # whoever waits must learn of it, whatever it is
                error = found
            here.tick()
            if ended:
                here.finished(len(ended))
            with self._calm:
                self._stepping = False
                self._calm.notify_all()
                if error is not None:
                    self._fail(error)
                self._end(ended)
                if time.monotonic() - self._told >= CHUNK_S:
                    self._tell()

    def _end(self, rows: Sequence[Row]) -> None:
        for row in rows:
            _, sink = self._open.pop(row.request.id)
            _give(sink, row.chunk(self._version()))

    def _tell(self) -> None:
        self._told = time.monotonic()
        for row, sink in self._open.values():
            _give(sink, row.chunk(self._version()))

    def _take(self, ids: Sequence[str] | None) -> list[tuple[Row, Sink]]:
        found = [self._open.pop(name) for name in (list(self._open) if ids is None else ids) if name in self._open]
        self.scheduler.remove([row for row, _ in found])
        return found

    def _fail(self, error: Exception) -> None:
        for _, sink in self._take(None):
            _give(sink, error)


def _give(sink: Sink, item: Chunk | Exception | None) -> None:
    if item is not None:
        with suppress(RuntimeError):  # the event loop that waited is closed
            sink(item)

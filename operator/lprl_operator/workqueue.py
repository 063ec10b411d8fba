"""A queue of keys, as controllers need it: deduplicated, serial per key, with delays and a growing back-off per failing key.

Invariants: a key is handed to one worker at a time; a key added while it is being worked on is handed out again afterwards; of
several pending times for one key the earliest counts; nothing is lost between `add` and `get`.
"""

import heapq
import random
import threading
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 60.0


class WorkQueue(Generic[K]):
    """Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, jitter: Callable[[], float] = random.random) -> None:
        self._clock, self._jitter = clock, jitter
        self._condition = threading.Condition()
        self._heap: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._busy: set[K] = set()
        self._again: dict[K, float] = {}
        self._failures: dict[K, int] = {}
        self._count = 0
        self._closed = False

    def add(self, key: K, delay_s: float = 0.0) -> None:
        """Hand out `key` after `delay_s` seconds, or earlier when that was wanted before."""
        with self._condition:
            self._add(key, self._clock() + max(0.0, delay_s))
            self._condition.notify()

    def add_all(self, keys: Iterable[K]) -> None:
        """Add many, to be handed out at once."""
        with self._condition:
            now = self._clock()
            for key in keys:
                self._add(key, now)
            self._condition.notify_all()

    def get(self, timeout_s: float) -> tuple[K, float] | None:
        """Return a key that is due and how long it waited beyond its time; None after `timeout_s` or when closed."""
        deadline = self._clock() + timeout_s
        with self._condition:
            while not self._closed:
                now = self._clock()
                found = self._pop(now)
                if found is not None:
                    return found
                if now >= deadline:
                    return None
                until = min(deadline, self._heap[0][0]) if self._heap else deadline
                self._condition.wait(max(0.0, until - now))
        return None

    def done(self, key: K) -> None:
        """Say that the worker finished with `key`."""
        with self._condition:
            self._busy.discard(key)
            when = self._again.pop(key, None)
            if when is not None:
                self._add(key, when)
                self._condition.notify()

    def retry(self, key: K, at_least_s: float = 0.0) -> float:
        """Add `key` after its back-off, which doubles with every failure in a row; returns the seconds."""
        with self._condition:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            base = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(failures - 1, 16))
            delay = max(at_least_s, base * (0.5 + self._jitter() / 2))
            self._add(key, self._clock() + delay)
            self._condition.notify()
            return delay

    def succeeded(self, key: K) -> None:
        """Forget the failures of `key`."""
        with self._condition:
            self._failures.pop(key, None)

    def clear(self) -> None:
        """Forget every key that waits."""
        with self._condition:
            self._heap.clear()
            self._due.clear()
            self._again.clear()

    def close(self) -> None:
        """Hand out nothing any more."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    @property
    def depth(self) -> int:
        """Keys that are due now and not being worked on."""
        with self._condition:
            now = self._clock()
            return sum(when <= now for when in self._due.values())

    def _add(self, key: K, when: float) -> None:
        if key in self._busy:
            self._again[key] = min(when, self._again.get(key, when))
            return
        if key in self._due and self._due[key] <= when:
            return
        self._due[key] = when
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, key))

    def _pop(self, now: float) -> tuple[K, float] | None:
        while self._heap and self._heap[0][0] <= now:
            when, _, key = heapq.heappop(self._heap)
            if self._due.get(key) != when:
                continue  # superseded by an earlier time
            del self._due[key]
            self._busy.add(key)
            return key, now - when
        return None

"""How far a conversion is: counted in source bytes, reported at most a few times a second."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

MIN_INTERVAL_S = 0.2


@dataclass(frozen=True, slots=True)
class ShardProgress:
    """Progress over the shards of one `convert_shards` call."""

    shard: str
    """Shard the latest bytes belong to."""
    bytes_done: int
    """Source bytes converted or found finished."""
    bytes_total: int
    bytes_skipped: int
    """Part of bytes_done that an earlier run had finished."""
    shards_done: int
    shards_total: int
    elapsed_s: float

    @property
    def bytes_per_second(self) -> float:
        """Rate of this run, without what was found finished; 0 before the first byte."""
        return (self.bytes_done - self.bytes_skipped) / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Time left at this rate, None while there is no rate."""
        rate = self.bytes_per_second
        return (self.bytes_total - self.bytes_done) / rate if rate > 0 else None


class Meter:
    """Thread-safe counter that calls back with a ShardProgress; calls never overlap."""

    def __init__(self, bytes_total: int, shards_total: int, on_progress: Callable[[ShardProgress], None]) -> None:
        self._lock = threading.Lock()
        self._on_progress = on_progress
        self._total, self._shards_total = bytes_total, shards_total
        self._done = self._skipped = self._shards_done = 0
        self._started = time.monotonic()
        self._reported = 0.0

    def add(self, shard: str, nbytes: int) -> None:
        """Count converted source bytes; reports when the last report is old enough."""
        with self._lock:
            self._done += nbytes
            if time.monotonic() - self._reported >= MIN_INTERVAL_S:
                self._report(shard)

    def finish(self, shard: str, skipped_bytes: int = 0) -> None:
        """Count a finished shard (skipped_bytes: found finished by an earlier run) and report."""
        with self._lock:
            self._done += skipped_bytes
            self._skipped += skipped_bytes
            self._shards_done += 1
            self._report(shard)

    def _report(self, shard: str) -> None:
        now = time.monotonic()
        self._reported = now
        self._on_progress(
            ShardProgress(shard, self._done, self._total, self._skipped, self._shards_done, self._shards_total, now - self._started)
        )

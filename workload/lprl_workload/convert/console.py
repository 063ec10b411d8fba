"""Progress for people: one line that rewrites itself on a terminal, a line every few seconds in a log."""

import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import TextIO

from lprl_workload.convert.disk import human_bytes
from lprl_workload.convert.progress import ShardProgress
from lprl_workload.convert.remote import DownloadProgress

LOG_INTERVAL_S = 10.0
TERMINAL_INTERVAL_S = 0.2


@dataclass(frozen=True, slots=True)
class Tick:
    """Where a piece of work is, in bytes of its input, or in `unit`s."""

    what: str
    done: int
    total: int
    skipped: int
    """Part of `done` that an earlier run had finished: no evidence for the rate."""
    elapsed_s: float
    unit: str = ""
    """What is counted, such as `layer passes`; empty counts bytes."""

    @property
    def rate(self) -> float:
        """Bytes (or units) per second of this run."""
        return (self.done - self.skipped) / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Time left at this rate, None while there is none."""
        return (self.total - self.done) / self.rate if self.rate > 0 else None


def shard_tick(progress: ShardProgress) -> Tick:
    """Return the progress of a conversion."""
    what = f"converting, shard {progress.shards_done} of {progress.shards_total} done"
    return Tick(what, progress.bytes_done, progress.bytes_total, progress.bytes_skipped, progress.elapsed_s)


def download_tick(progress: DownloadProgress) -> Tick:
    """Return the progress of a download."""
    return Tick(f"downloading {progress.file}", progress.bytes_done, progress.bytes_total, progress.bytes_skipped, progress.elapsed_s)


def render(tick: Tick) -> str:
    """Return one line: share, bytes, rate, time left."""
    share = 100.0 * tick.done / tick.total if tick.total else 100.0
    left = tick.seconds_left
    when = "" if left is None else f", {_duration(left)} left"
    if tick.unit:
        return f"{tick.what}: {share:5.1f} %, {tick.done} of {tick.total} {tick.unit}{when}"
    return f"{tick.what}: {share:5.1f} %, {human_bytes(tick.done)} of {human_bytes(tick.total)}, {human_bytes(tick.rate)}/s{when}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class ProgressLine:
    """Prints ticks to a stream (stderr); as JSON lines to stdout for a parent process when `as_json`."""

    def __init__(self, stream: TextIO | None = None, *, as_json: bool = False) -> None:
        self._stream = stream or (sys.stdout if as_json else sys.stderr)
        self._as_json = as_json
        self._terminal = not as_json and self._stream.isatty()
        self._shown_at = float("-inf")
        self._width = 0

    def show(self, tick: Tick) -> None:
        """Show a tick, unless the last one is recent; the last tick of a piece of work is always shown."""
        now = time.monotonic()
        interval = TERMINAL_INTERVAL_S if self._terminal or self._as_json else LOG_INTERVAL_S
        if now - self._shown_at < interval and tick.done < tick.total:
            return
        self._shown_at = now
        if self._as_json:
            print(json.dumps(asdict(tick)), file=self._stream, flush=True)
            return
        line = render(tick)
        if self._terminal:
            print("\r" + line.ljust(self._width), end="", file=self._stream, flush=True)
            self._width = len(line)
        else:
            print(line, file=self._stream, flush=True)

    def shards(self, progress: ShardProgress) -> None:
        """Show the progress of a conversion."""
        self.show(shard_tick(progress))

    def download(self, progress: DownloadProgress) -> None:
        """Show the progress of a download."""
        self.show(download_tick(progress))

    def close(self) -> None:
        """End the line on a terminal."""
        if self._terminal and self._width:
            print(file=self._stream, flush=True)
            self._width = 0

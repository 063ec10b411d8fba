"""A whole conversion on this machine: inspect, N worker processes with one progress line, finalise."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from lprl_api import names
from lprl_api.model.content_key import content_key
from lprl_api.model.formats import WeightFormat
from lprl_api.spec.sources import ModelSource, VolumePath
from lprl_api.wire.runconfig import ConvertConfig
from lprl_workload.convert.cache import claim, find_conversion, partial_of
from lprl_workload.convert.console import ProgressLine, Tick
from lprl_workload.convert.disk import require_free
from lprl_workload.convert.finalise import finalise
from lprl_workload.convert.job import bytes_to_write
from lprl_workload.convert.manifest import ConversionManifest


class WorkersFailed(Exception):
    """A worker process ended with an error, which it printed itself; `code` is its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"a conversion worker ended with exit code {code}")
        self.code = code


def convert_all(
    source: Path,
    target: Path,
    fmt: WeightFormat,
    fingerprint: str,
    workers: int,
    threads: int | None,
    max_error: float | None,
    line: ProgressLine,
) -> ConversionManifest:
    """Convert a folder with `workers` processes and publish it; run again after a kill, it goes on where it stopped.

    What can be refused is refused here, once, before the workers start. Raises WorkersFailed, and what `run_worker` and `finalise` raise.
    """
    config = ConvertConfig(
        source=ModelSource(volume="source", path=source.name),
        target=VolumePath(volume="target", path=target.name),
        format=fmt,
        fingerprint=fingerprint,
        content_key=content_key(fingerprint, fmt),
        workers=workers,
        threads=threads,
        max_relative_rms_error=max_error,
    )
    partial = partial_of(target)
    if find_conversion(target, config.content_key) is None:
        require_free(partial, bytes_to_write(config, source, partial), f"converting {source.name} to {fmt.kind}")
        claim(partial, config.content_key)
    # Beside the target, where the next run overwrites what a killed one left.
    file = target.with_name(f".{target.name}.convert.json")
    try:
        file.write_text(json.dumps(config.document()))
        _run_workers(["--config", str(file), "--folders", str(source), str(target)], workers, line)
    finally:
        file.unlink(missing_ok=True)
    return finalise(config, source, target)


def _run_workers(options: Sequence[str], workers: int, line: ProgressLine) -> None:
    """Run every index at once and add their progress up; when one fails, the others are stopped."""
    env = {**os.environ, names.ENV_TERMINATION_LOG: os.devnull}
    command = [sys.executable, "-m", "lprl_workload", "convert", *options, "--progress", "json", "--index"]
    processes = [subprocess.Popen([*command, str(i)], env=env, stdout=subprocess.PIPE, text=True) for i in range(workers)]
    totals = _Totals(line, workers)
    readers = [threading.Thread(target=totals.follow, args=(i, p.stdout), daemon=True) for i, p in enumerate(processes)]
    try:
        for reader in readers:
            reader.start()
        code = _first_failure(processes)
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
        for process in processes:
            process.wait()
        for reader in readers:
            reader.join()
        line.close()
    if code:
        raise WorkersFailed(code)


def _first_failure(processes: Sequence["subprocess.Popen[str]"]) -> int:
    """Wait until all have ended well, or one has not; returns its exit code, else 0."""
    waiting = list(processes)
    while waiting:
        for process in list(waiting):
            try:
                code = process.wait(timeout=0.1)
            except subprocess.TimeoutExpired:
                continue
            if code:
                return code
            waiting.remove(process)
    return 0


class _Totals:
    """The sum of all workers' progress."""

    def __init__(self, line: ProgressLine, workers: int) -> None:
        self._line = line
        self._ticks: dict[int, Tick] = {}
        self._workers = workers
        self._lock = threading.Lock()

    def follow(self, index: int, lines: IO[str]) -> None:
        """Read one worker's JSON lines until it closes them."""
        for text in lines:
            tick = Tick(**json.loads(text))
            with self._lock:
                self._ticks[index] = tick
                self._show()

    def _show(self) -> None:
        ticks = self._ticks.values()
        what = f"converting, {self._workers} processes" if self._workers > 1 else next(iter(ticks)).what
        total = Tick(
            what,
            sum(t.done for t in ticks),
            sum(t.total for t in ticks),
            sum(t.skipped for t in ticks),
            max(t.elapsed_s for t in ticks),
        )
        self._line.show(total)

"""Reporter: tells the operator what the driver knows, and hears what the operator asks. A thread of its own, so that a long
generation still reports; a failed report is retried with the next one and never stops the run.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from lprl_api.progress import Control, DriverPhase, Progress
from lprl_workload.metrics.configmaps import ConfigMapStore

log = logging.getLogger(__name__)
MIN_INTERVAL_S = 0.2
"""Reports are never closer than this, however often the phase changes."""


class Reporter:
    """Holds the newest Progress and sends it every `interval_s` seconds and when the phase changes.

    Only the reporting thread talks to the store; `update` and `control` never block on it.
    """

    def __init__(self, store: ConfigMapStore | None, first: Progress, interval_s: float, control: Control | None = None) -> None:
        self._store = store
        self._progress = first
        self._control = control
        self._interval_s = max(interval_s, MIN_INTERVAL_S)
        self._lock = threading.Lock()
        self._exchange_lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()

    def update(self, **changes: Any) -> None:
        """Change fields of Progress (validated); they go out with the next report."""
        with self._lock:
            self._progress = Progress.model_validate({**self._progress.model_dump(), **changes})

    def phase(self, phase: DriverPhase, **changes: Any) -> None:
        """Change the phase and report soon."""
        self.update(phase=phase, **changes)
        self._wake.set()

    @property
    def progress(self) -> Progress:
        """The newest Progress, whether or not it was sent."""
        with self._lock:
            return self._progress

    @property
    def control(self) -> Control | None:
        """What the operator last asked for; `control` of the start before the first answer."""
        with self._lock:
            return self._control

    def flush(self) -> None:
        """Report now, in the calling thread, and take the answer."""
        self._exchange()

    def close(self) -> None:
        """Report a last time and stop the thread."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout=30)
        self._exchange()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._exchange()
            self._stopping.wait(MIN_INTERVAL_S)
            self._wake.wait(self._interval_s - MIN_INTERVAL_S)
            self._wake.clear()

    def _exchange(self) -> None:
        if self._store is None:
            return
        with self._exchange_lock:
            with self._lock:
                self._progress = self._progress.model_copy(update={"sequence": self._progress.sequence + 1})
                document = self._progress.model_dump_json(by_alias=True)
            self._try(self._store.exchange, document)

    def _try(self, exchange: Callable[[str], str | None], document: str) -> None:
        try:
            answer = exchange(document)
            control = Control.model_validate_json(answer) if answer else None
        except (OSError, ValueError, ValidationError) as error:
            if not self._failing:
                log.warning("progress report failed (%s); trying again with every report", error)
            self._failing = True
            return
        self._failing = False
        with self._lock:
            self._control = control or self._control

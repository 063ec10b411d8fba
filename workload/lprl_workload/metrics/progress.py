"""Reporter: tells the operator what the driver knows, and hears what the operator asks. A thread of its own, so that a long
generation still reports; a failed report is retried with the next one and never stops the run.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from lprl_api import names
from lprl_api.wire import lenient
from lprl_api.wire.progress import Control, DriverPhase, Progress
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.metrics.configmaps import ConfigMapStore, FileStore, open_store
from lprl_workload.metrics.turns import Turns
from lprl_workload.process.movement import Movement, here

log = logging.getLogger(__name__)
SETTLE_S = 0.02
WORDS: dict[DriverPhase, str] = {
    "syncing": "weight push",
    "generating": "generation",
    "evaluating": "evaluation",
    "checkpointing": "checkpoint",
    "exporting": "export",
}
"""What is waited for in a phase, where its own name does not say it."""
LOCAL_INTERVAL_S = 1.0
"""Files of one machine cost nothing: there the operator may know, and the driver hear, sooner."""


class Reporter:
    """Holds the newest Progress and sends it every `interval_s` seconds; what somebody waits for (turns.py) goes at once.

    Only the reporting thread talks to the store; `update` and `control` never block on it.
    """

    def __init__(
        self, store: ConfigMapStore | None, first: Progress, interval_s: float, control: Control | None = None, movement: Movement = here
    ) -> None:
        self._store, self._movement = store, movement
        self._progress = first
        self._control = control
        self._turns = Turns(interval_s)
        self._lock = threading.Lock()
        self._exchange_lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()

    def update(self, **changes: Any) -> None:
        """Change fields of Progress (validated); they go out with the next report, which is now when they are news. It moves the run."""
        self._movement.tick()
        with self._lock:
            before, self._progress = self._progress, Progress.model_validate({**self._progress.model_dump(), **changes})
            urgent = self._turns.changed(before, self._progress)
        if urgent:
            self._wake.set()

    def phase(self, phase: DriverPhase, **changes: Any) -> None:
        """Change the phase."""
        self._movement.begin(WORDS.get(phase, phase))
        self.update(phase=phase, **changes)

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

    def close(self) -> None:
        """Report a last time and stop the thread."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout=30)
        self._exchange()

    def _run(self) -> None:
        while self._store is not None and not self._stopping.is_set():
            with self._lock:
                wait_s = self._turns.wait_s(time.monotonic())
            if wait_s > 0:
                self._wake.wait(wait_s)
                self._wake.clear()
                self._stopping.wait(SETTLE_S)  # what changes together is told together
            else:
                self._exchange()

    def _exchange(self) -> None:
        if self._store is None:
            return
        with self._exchange_lock:
            with self._lock:
                self._progress = self._progress.model_copy(update={"sequence": self._progress.sequence + 1, **self._movement.told()})
                self._turns.reported(time.monotonic())
                document = self._progress.model_dump_json(by_alias=True)
            self._try(self._store.exchange, document)

    def _try(self, exchange: Callable[[str], str | None], document: str) -> None:
        try:
            answer = exchange(document)
            control = lenient.read_json(Control, answer) if answer else None
        except (OSError, ValueError, ValidationError) as error:
            if not self._failing:
                log.warning("progress report failed (%s); trying again with every report", error)
            self._failing = True
            return
        self._failing = False
        with self._lock:
            self._control = control or self._control


def make_reporter(run: RunConfig, attempt: int) -> Reporter:
    """Return the reporter of an attempt; it reports from now on."""
    first = Progress(attempt=attempt, sequence=0, phase="starting", step=0, steps=run.algorithm.steps)
    store = open_store(run.namespace, names.progress_configmap(run.job_name, attempt))
    wished = run.progress.interval_seconds
    interval_s = min(wished, LOCAL_INTERVAL_S) if isinstance(store, FileStore) else wished
    return Reporter(store, first, interval_s, Control(steps=run.algorithm.steps, stability=run.stability))

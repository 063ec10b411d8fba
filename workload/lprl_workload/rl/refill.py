"""Replacing lost engines while those that are left go on: a thread that nobody waits for until `settle`."""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from lprl_workload.process.errors import EngineLostError, WeightMismatchError
from lprl_workload.rl.groups import RolloutGroup
from lprl_workload.sync.probe import judge

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Refill:
    """Brings engines back; every method may be called from any thread."""

    rollout: RolloutGroup
    charge: Callable[[EngineLostError], None]
    """Told of every replacement that is lost itself; raises when no further loss is affordable."""
    probe: Sequence[int]
    """Tokens that every engine scores before a replacement takes work."""
    turn: AbstractContextManager[object] = field(default_factory=threading.RLock)
    """Held while engines are replaced: no push meets that."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None
    _wanted: int | None = None
    _error: Exception | None = None

    def want(self, version: int) -> None:
        """Replace what is lost now, beside the work of others, and have it serve `version`."""
        with self._lock:
            self._wanted = version
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="refill", daemon=True)
                self._thread.start()

    def settle(self) -> None:
        """Wait until nothing is being replaced; raises what ended it before its time."""
        while True:
            with self._lock:  # in which a thread is started: one that is not cannot be joined
                thread = self._thread
                if thread is None:
                    error, self._error = self._error, None
                    break
            thread.join()
        if error is not None:
            raise error

    def _work(self) -> None:
        while True:
            with self._lock:
                version, self._wanted = self._wanted, None
                if version is None:
                    self._thread = None
                    return
            try:
                self._replace(version)
            except Exception as error:
                with self._lock:
                    self._error, self._wanted = error, None

    def _replace(self, version: int) -> None:
        """Do it once, and again for what is lost meanwhile. Where no engine serves `version`, others have to bring it."""
        with self.turn:
            self._replace_all(version)

    def _replace_all(self, version: int) -> None:
        while True:
            fresh: list[int] | None = None
            try:
                fresh = self.rollout.replace_lost()
                if not self.rollout.copy_version(version):
                    return
                if problem := judge(self.rollout.probe(self.probe), None):
                    raise WeightMismatchError(f"weights of version {version}, copied to a returning engine: {problem}")
                self.rollout.admit()
                return
            except EngineLostError as lost:
                log.warning("engine %d lost while engines were replaced: %s", lost.engine, lost)
                if fresh is None or lost.engine in fresh:  # else whoever it works for tells of it
                    self.charge(lost)

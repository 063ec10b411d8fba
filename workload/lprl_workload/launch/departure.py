"""What a driver does when its pod has to go (SIGTERM): end by itself, soon, with a checkpoint where one can be made.

A signal that arrives while the main thread is inside a call to Ray may be heard of only after that call. So the signal's number is
read from a pipe by a thread of its own, and that thread ends the process when the loop cannot: the head's Ray or the workers are gone,
nothing is there to save yet, or the time is up.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NoAnswer

log = logging.getLogger(__name__)
LIMIT_S = 75.0
"""For the step under way and a checkpoint: well under the 120 s that the pod has."""
UNSAVED_S = 3.0
"""While there is nothing to save: for the main thread to end in order."""
CLOSE_S = 10.0
"""For closing what is open once the checkpoint is made."""
ANSWER_S = 5.0
"""How long Ray may take to say what nodes there are before it counts as gone."""
POLL_S = 0.5


class Departure:
    """SIGTERM sets `asked`, on which the loop checkpoints and ends; `end(code_is_orderly, why)` ends a process that does not."""

    def __init__(self, end: Callable[[bool, str], None], limit_s: float = LIMIT_S) -> None:
        """Nothing is listened for before `listen`."""
        self.asked = threading.Event()
        self._end, self._limit_s = end, limit_s
        self._can_save: Callable[[], bool] = lambda: False
        self._lacks: Callable[[], str] = lambda: ""
        self._saved = threading.Event()
        self._pipe: tuple[int, int] | None = None

    def listen(self, watch: bool = True) -> None:
        """Have SIGTERM set `asked` from now on, and with `watch` end what does not end by itself.

        Only the main thread can; may be called again (Ray puts its own handler there).
        """
        if threading.current_thread() is not threading.main_thread():
            return
        signal.signal(signal.SIGTERM, lambda *_: self.asked.set())
        if self._pipe is None and watch:
            self._pipe = os.pipe()
            os.set_blocking(self._pipe[1], False)
            signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
            threading.Thread(target=self._watch, name="departure", daemon=True).start()

    def guard(self, can_save: Callable[[], bool], lacks: Callable[[], str]) -> None:
        """From now on there may be something to save: `can_save` says when, `lacks` what a checkpoint needs that is gone (asks Ray)."""
        self._can_save, self._lacks = can_save, lacks

    def saved(self) -> None:
        """The checkpoint is made: only closing is left."""
        self._saved.set()

    def _watch(self) -> None:
        assert self._pipe is not None
        while signal.SIGTERM not in os.read(self._pipe[0], 16):
            pass
        self.asked.set()
        log.info("asked to end (SIGTERM): a checkpoint, if one can be made in %.0f s", self._limit_s)
        since, asks = time.monotonic(), ThreadPoolExecutor(1)
        while (why := self._hopeless(time.monotonic() - since, asks)) is None:
            self._saved.wait(POLL_S)
        self._end(self._saved.is_set(), why)

    def _hopeless(self, waited_s: float, asks: ThreadPoolExecutor) -> str | None:
        """Return why the process is to be ended from here, None while it may still end by itself."""
        if self._saved.is_set():
            time.sleep(CLOSE_S)
            return "closing took too long"
        if not self._can_save():
            return "nothing was there to save" if waited_s >= UNSAVED_S else None
        if waited_s >= self._limit_s:
            return f"no checkpoint could be made in {self._limit_s:.0f} s"
        lacking = self._lacking(asks)
        return f"no checkpoint could be made: {lacking}" if lacking and not self._saved.is_set() else None

    def _lacking(self, asks: ThreadPoolExecutor) -> str:
        """Return what is missing, in words; Ray without its head does not answer at all."""
        answer: Future[str] = asks.submit(self._lacks)
        try:
            return answer.result(ANSWER_S)
        except NoAnswer:
            return "Ray does not answer"
        except Exception as error:
            return f"Ray is gone ({error})"

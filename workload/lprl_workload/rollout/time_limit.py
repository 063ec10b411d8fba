"""A time limit on code that is not ours and runs in this process."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNAL = signal.SIGUSR2
"""Not SIGALRM: libraries that judge answers use that one for limits of their own."""


class TimeLimitError(BaseException):
    """The limit is over. No Exception, so that `except Exception` in what is limited does not swallow it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeLimitError inside the block after `seconds`; in another thread than the main one there is no limit.

    What is interrupted is Python code, sleeps and reads; a long computation in C ends first.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    over = threading.Event()

    def ring(*_: object) -> None:
        if not over.is_set():
            raise TimeLimitError

    before = signal.signal(SIGNAL, ring)
    main = threading.get_ident()
    timer = threading.Timer(seconds, lambda: None if over.is_set() else signal.pthread_kill(main, SIGNAL))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        over.set()
        timer.cancel()
        timer.join()
        signal.signal(SIGNAL, before)

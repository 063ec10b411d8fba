"""Work that goes on in a thread of its own while its process does something else."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(Generic[T]):
    """`work()` in a daemon thread; what it returned or raised is kept until it is asked for. It does not hold up the process' end."""

    def __init__(self, work: Callable[[], T], name: str) -> None:
        """Begin at once."""
        self._future: Future[T] = Future()
        self._work = work
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        try:
            self._future.set_result(self._work())
        except BaseException as error:  # whoever asks must learn of it, whatever it is
            self._future.set_exception(error)
        del self._work  # and what it holds

    @property
    def done(self) -> bool:
        """Whether it ended, well or not."""
        return self._future.done()

    def wait(self) -> None:
        """Wait until it ended, however."""
        self._future.exception()

    def result(self) -> T:
        """Wait, and return what it returned or raise what it raised."""
        return self._future.result()

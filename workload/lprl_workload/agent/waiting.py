"""What an event loop of episodes needs so that nothing a user's code waits for is waited for at its end."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


def cancelling() -> bool:
    """Return whether the running task itself is cancelled; else a CancelledError came from something that it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def uncancel() -> None:
    """Let the running task go on although it was cancelled."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


class Unwaited(ThreadPoolExecutor):
    """Threads for `asyncio.to_thread`, a daemon a call: one that never returns costs the episode its time limit and nobody else."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See Executor."""
        future: Future[Any] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                found = fn(*args, **kwargs)
            except BaseException as error:  # whoever waits learns of it
                future.set_exception(error)
            else:
                future.set_result(found)

        threading.Thread(target=run, name="to_thread", daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for nothing."""

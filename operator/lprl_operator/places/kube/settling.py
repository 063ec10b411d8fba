"""A Job of a name that one was just deleted of is made a moment later.

The Job controller knows Jobs by name: one that is back before it looked keeps what was expected of the old one's pods, and is left
without pods until that expires after five minutes.
"""

import threading
import time

from lprl_operator.decide.observed import ObjectRef

SETTLE_S = 2.0


class Settling:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._deleted: dict[ObjectRef, float] = {}

    def deleted(self, ref: ObjectRef) -> None:
        """Note that we delete an object now."""
        if ref.kind == "Job":
            with self._lock:
                now = time.monotonic()
                self._deleted = {r: at for r, at in self._deleted.items() if now - at < SETTLE_S} | {ref: now}

    def wait(self, ref: ObjectRef) -> None:
        """Wait until the Job controller has noticed a deletion of ours."""
        with self._lock:
            deleted = self._deleted.pop(ref, None)
        if deleted is not None:
            time.sleep(max(0.0, SETTLE_S - (time.monotonic() - deleted)))

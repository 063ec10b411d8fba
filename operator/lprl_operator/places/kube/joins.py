"""Many owners of one object, written together: who comes while a patch is under way is in the next one.

A conversion that a thousand jobs share holds a thousand owner references; a patch for each of them would read, merge and tell
the whole list a thousand times.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lprl_operator.decide.actions import AddOwner
from lprl_operator.decide.observed import ObjectRef

Patch = Callable[[ObjectRef, str, Sequence[Mapping[str, Any]]], None]
"""Adds owner references to an object of this uid; raises what the caller of `add` is to see."""


@dataclass
class _Batch:
    owners: list[Mapping[str, Any]] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None


class Joins:
    """Thread-safe: called by the workers, each of which waits until its own owner reference is written."""

    def __init__(self, patch: Patch) -> None:
        self._patch = patch
        self._lock = threading.Lock()
        self._next: dict[tuple[ObjectRef, str], _Batch] = {}
        """What the next patch of an object will hold."""
        self._sending: set[tuple[ObjectRef, str]] = set()

    def add(self, action: AddOwner) -> None:
        """Return when the reference is on the object; raise what the patch that held it raised."""
        target = (action.ref, action.uid)
        with self._lock:
            batch = self._next.setdefault(target, _Batch())
            batch.owners.append(action.owner)
            sends = target not in self._sending
            self._sending.add(target)
        if sends:
            self._send(target)
        # Whoever sends goes on until nobody waits, each patch bounded by the request's own time limit.
        batch.done.wait()
        if batch.error is not None:
            raise batch.error

    def _send(self, target: tuple[ObjectRef, str]) -> None:
        while True:
            with self._lock:
                batch = self._next.pop(target, None)
                if batch is None:
                    self._sending.discard(target)
                    return
            try:
                self._patch(*target, batch.owners)
            except Exception as error:
                batch.error = error
            finally:
                batch.done.set()

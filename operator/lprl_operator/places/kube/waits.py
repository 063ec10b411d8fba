"""How long queues held what they let go of: counted by this process, from when it saw a thing held."""

import threading
from collections.abc import Callable, Mapping
from datetime import datetime

from lprl_operator.decide.observed import Key

Told = Callable[[str, float], None]
"""Called with the kind of what was let go, and the seconds it was held."""
Thing = tuple[str, str]
"""Kind and uid."""


class Waits:
    """Thread-safe."""

    def __init__(self) -> None:
        self.tell: Told = lambda kind, seconds: None
        self._lock = threading.Lock()
        self._waiting: dict[Key, set[Thing]] = {}
        self._since: dict[Thing, datetime] = {}
        """Of what several jobs wait for, too, once: it is let go once."""

    def look(self, key: Key, held: Mapping[Thing, bool], now: datetime) -> None:
        """Take over what of a job is held now (False: let go); what is gone was not let go."""
        with self._lock:
            before = self._keep(key, {thing for thing, is_held in held.items() if is_held})
            for thing in self._waiting.get(key, ()):
                self._since.setdefault(thing, now)
            over = [(thing, since) for thing in before if held.get(thing) is False and (since := self._since.pop(thing, None))]
            self._drop(before)
        for thing, since in over:
            self.tell(thing[0], (now - since).total_seconds())

    def forget(self, key: Key) -> None:
        """Drop a job that is gone."""
        with self._lock:
            self._drop(self._keep(key, set()))

    def _keep(self, key: Key, waiting: set[Thing]) -> set[Thing]:
        """Return what a job waited for and does not any more."""
        before = self._waiting.pop(key, set())
        if waiting:
            self._waiting[key] = waiting
        return before - waiting

    def _drop(self, things: set[Thing]) -> None:
        """Forget what nobody waits for."""
        for thing in things:
            if not any(thing in waiting for waiting in self._waiting.values()):
                self._since.pop(thing, None)

"""How long queues held what they let go of: counted by this process, from when it saw a thing held."""

import threading
from collections.abc import Callable, Mapping
from datetime import datetime

from lprl_operator.decide.observed import Key

Told = Callable[[str, float], None]
"""Called with the kind of what was let go, and the seconds it was held."""


class Waits:
    """Thread-safe."""

    def __init__(self) -> None:
        self.tell: Told = lambda kind, seconds: None
        self._lock = threading.Lock()
        self._since: dict[Key, dict[tuple[str, str], datetime]] = {}
        """By job, by kind and uid."""

    def look(self, key: Key, held: Mapping[tuple[str, str], bool], now: datetime) -> None:
        """Take over what of a job is held now (False: let go); what is gone was not let go."""
        with self._lock:
            before = self._since.pop(key, {})
            waiting = {thing: before.get(thing, now) for thing, is_held in held.items() if is_held}
            if waiting:
                self._since[key] = waiting
        for thing, since in before.items():
            if held.get(thing) is False:
                self.tell(thing[0], (now - since).total_seconds())

    def forget(self, key: Key) -> None:
        """Drop a job that is gone."""
        with self._lock:
            self._since.pop(key, None)

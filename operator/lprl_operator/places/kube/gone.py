"""Which objects of a kind are gone, for as long as an answer to an earlier request may still come. Not thread-safe: the cache is.

What watches tell and what our own requests are answered comes on several threads, so an answer may be taken over after the end of
its object was. Kubernetes gives no uid twice, so whoever is told of an end may ignore what is older, whichever way it comes.
"""

import time

KEPT_S = 900.0
"""Longer than any request may take."""
MOST = 4096


class Gone:
    """Uids of deleted objects, each with the version its end has."""

    def __init__(self) -> None:
        self._ends: dict[str, tuple[int, float]] = {}

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, uid: str, version: int) -> None:
        """Note an end; version 0: of an object that was looked for under its name, and was not there."""
        now = time.monotonic()
        self._ends.pop(uid, None)
        self._ends[uid] = (version, now)
        while len(self._ends) > MOST or now - next(iter(self._ends.values()))[1] > KEPT_S:
            del self._ends[next(iter(self._ends))]

    def covers(self, uid: str, version: int) -> bool:
        """Whether an object of this version is from before its end.

        A watch with a selector also tells of an end when an object loses its label: it is back with a later version.
        """
        end, _ = self._ends.get(uid, (-1, 0.0))
        return end == 0 or (end > 0 and version <= end)

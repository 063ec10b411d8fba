"""The API server's clock. Status keeps times that replicas compare whose own clocks may be minutes apart; this one they share."""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

TOLERATED = timedelta(seconds=5)
"""A smaller difference is the resolution of a Date header and the network's time: our own clock is used as it is."""


class ServerClock:
    """Told the Date header of every answer. Thread-safe: one attribute, replaced whole."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def heard(self, date: str | None) -> None:
        """Take over what an answer's header says; nothing when it says nothing that can be read."""
        try:
            found = parsedate_to_datetime(date or "") - datetime.now(UTC)
        except (ValueError, TypeError):
            return
        self._ahead = found if abs(found) > TOLERATED else timedelta()

    def now(self) -> datetime:
        """The time there, now."""
        return datetime.now(UTC) + self._ahead

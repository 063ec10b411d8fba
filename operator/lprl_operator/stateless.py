"""kopf's storages for an operator that only watches: nothing is kept on objects, nothing is compared.

By default kopf copies every document of every event to find out what changed since it was last handled, and to hide its own
notes from that. Event handlers need neither; over a thousand jobs the copies were half of the operator's processor time.
"""

from collections.abc import Iterable
from typing import Any, cast

import kopf


class NothingCompared(kopf.DiffBaseStorage):
    """Every object looks the same: an empty essence, none remembered."""

    def build(self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None) -> kopf.BodyEssence:
        """Return an empty essence without looking at the object."""
        return cast("kopf.BodyEssence", {})

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """Nothing is remembered."""
        return None

    def store(self, **_: Any) -> None:
        """Remember nothing."""


class NothingInProgress(kopf.ProgressStorage):
    """No handler has a state to keep."""

    def fetch(self, **_: Any) -> None:
        """Nothing is remembered."""

    def store(self, **_: Any) -> None:
        """Remember nothing."""

    def purge(self, **_: Any) -> None:
        """Nothing is there to remove."""

    def touch(self, **_: Any) -> None:
        """Write nothing."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        """Return the essence as it is."""
        return essence

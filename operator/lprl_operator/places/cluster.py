"""The Cluster Protocol: the only door between decisions and the world. One contract suite tests every adapter.

Order inside one reconcile, on which correctness rests:

1. `observe` may answer from a cache. A cache may only ever tell us that nothing is to be done.
2. Before anything is done (a child created or deleted, an attempt or an end decided) the job and its children are read
   again with `live_read` and the decision is made anew from that.
3. `publish` writes status, guarded by the resource version that was read. It runs before `apply`: an attempt number is in
   status before any child of it exists, and an exit code is in status before the pod that holds it is deleted.
4. `apply` runs only when `publish` succeeded or had nothing to write.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from lprl_operator.decide.actions import Action, Event
from lprl_operator.decide.observed import Key, Observed


class Conflict(Exception):
    """The object changed since it was read; the caller reconciles again from a fresh read."""


class Cluster(Protocol):
    """A place jobs run in: a Kubernetes API server, or this machine."""

    def observe(self, key: Key) -> Observed:
        """Return what is known of a job's children, from a cache where there is one. Never blocks on the network."""

    def live_read(self, key: Key) -> tuple[Mapping[str, Any] | None, Observed]:
        """Read the job's document (None when it is gone) and its children, all of them, from the source of truth.

        Worker pods of every attempt are included here, since attempt N+1 waits for them.
        """

    def publish(self, key: Key, status: Mapping[str, Any], resource_version: str | None, events: Sequence[Event]) -> None:
        """Replace the job's status (a full JSON document), then post the events.

        Raises:
            Conflict: the job's resource version is not `resource_version` any more; nothing was written or posted.

        """

    def apply(self, actions: Sequence[Action]) -> None:
        """Execute actions in order. A refused create is remembered for `observe`, and the rest of the list waits for it.

        A Delete may name the job itself (its time to live is over): children follow by garbage collection.

        Raises:
            Conflict: a precondition of a Delete, AddOwner or RemoveOwner did not hold; later actions were not executed.

        """

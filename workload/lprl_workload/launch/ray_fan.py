"""How one rank's calls reach engine actors: buckets by CUDA handle or through the object store, and waiting for the answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from lprl_workload.data import Bucket
from lprl_workload.launch.hosts import EngineHost
from lprl_workload.launch.ray_crew import Crew, call
from lprl_workload.launch.stillness import Limits, after_failure
from lprl_workload.process.errors import EngineLostError
from lprl_workload.rollout.engine import RolloutEngine
from lprl_workload.sync.checks import Check
from lprl_workload.sync.cuda_ipc import share
from lprl_workload.sync.routes import Target
from lprl_workload.sync.transport_broadcast import Confirm


@dataclass(frozen=True, slots=True)
class Seat:
    """An engine as a rank reaches it."""

    handle: Any
    node: str


class Link:
    """The few things a transport asks of Ray and CUDA."""

    def __init__(self, seats: Mapping[int, Seat], limits: Limits | None = None) -> None:
        """`limits`: of how long the engines may stand still in one call; None: as long as they live."""
        self._seats, self._limits = seats, limits

    def put(self, stored: Any) -> Any:
        """Put a bucket into the object store."""
        return ray.put(stored)

    def share(self, bucket: Bucket) -> Any:
        """Return a handle of a bucket in GPU memory."""
        return share(bucket)

    def wait(self, refs: Sequence[Any], engines: Sequence[int]) -> None:
        """Wait for calls to engines."""
        handles = {engine: seat.handle for engine, seat in self._seats.items()}
        Crew("engine", EngineLostError, self._limits, handles).gather(refs, "weight update", engines)


class ObjectStoreTransport:
    """Transport to engine actors: by CUDA handle on the sender's node, elsewhere through Ray's object store (one copy a node)."""

    def __init__(self, seats: Mapping[int, Seat], node: str, link: Link | None = None) -> None:
        """`seats` by engine number; `node`: this rank's. A GPU's memory is reachable from no other node."""
        self._seats, self._node, self._link = dict(seats), node, link or Link(seats)

    def begin(self, version: int, strong: bool) -> None:
        """Begin on every engine."""
        self._all(lambda handle: call(handle, RolloutEngine.begin_update, version, strong))

    def open_round(self) -> None:
        """Nobody has to know."""

    def send(self, bucket: Bucket, to: Sequence[Target]) -> None:
        """Load on every engine; returns when all have, so one bucket is staged at a time."""
        seats = [self._seats[target.engine] for target in to]
        by_handle = [bucket.data.is_cuda and seat.node == self._node for seat in seats]
        # As numpy, which Ray shares without a copy.
        stored = None if all(by_handle) else self._link.put((bucket.entries, bucket.data.cpu().numpy()))
        # A handle is opened once: torch counts the references of each.
        refs = [
            seat.handle.load_handle.remote(self._link.share(bucket)) if direct else seat.handle.load_stored.remote(stored)
            for seat, direct in zip(seats, by_handle, strict=True)
        ]
        self._link.wait(refs, [target.engine for target in to])

    def close_round(self) -> None:
        """Nobody has to know."""

    def commit(self, version: int, checks: Sequence[tuple[Sequence[Target], Check]]) -> None:
        """Have every engine compare and serve."""
        told = {target.engine: check for targets, check in checks for target in targets}
        refs = [call(self._seats[engine].handle, RolloutEngine.end_update, version, check) for engine, check in told.items()]
        self._link.wait(refs, list(told))

    def abort(self, why: str, first: bool) -> None:
        """Tell every engine; nobody waits for those that are gone."""
        for seat in self._seats.values() if first else ():
            call(seat.handle, RolloutEngine.abort_update, why)

    def _all(self, call: Callable[[Any], Any]) -> None:
        self._link.wait([call(seat.handle) for seat in self._seats.values()], list(self._seats))


def broadcast_announcer(seats: Mapping[int, Seat], limits: Limits) -> Callable[[int, bool], Confirm]:
    """Return the `announce` of a broadcast transport."""
    broke = after_failure(limits)

    def announce(version: int, strong: bool) -> Confirm:
        refs = [call(seat.handle, EngineHost.receive_broadcast, version, strong, Target(number)) for number, seat in seats.items()]
        return lambda broken: Link(seats, broke if broken else limits).wait(refs, list(seats))

    return announce


def disk_announcer(seats: Mapping[int, Seat], root: Path, limits: Limits | None = None) -> Callable[[int], Callable[[], None]]:
    """Return the `announce` of a disk transport."""

    def announce(version: int) -> Callable[[], None]:
        refs = [call(seat.handle, EngineHost.receive_disk, root, version, Target(number)) for number, seat in seats.items()]
        return lambda: Link(seats, limits).wait(refs, list(seats))

    return announce

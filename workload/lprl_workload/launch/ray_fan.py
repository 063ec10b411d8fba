"""How one rank's calls reach engine actors: buckets by CUDA handle or through the object store, and waiting for the answers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray

from lprl_workload.data import Bucket
from lprl_workload.launch.ray_link import ActorLostError, get_all
from lprl_workload.launch.ray_vigil import Vigil
from lprl_workload.launch.stillness import Limits
from lprl_workload.process.errors import EngineLostError
from lprl_workload.sync.cuda_ipc import share


class ObjectStoreFan:
    """Receiver that forwards to engine actors: by CUDA handle on the sender's node, elsewhere through Ray's object store."""

    def __init__(self, handles: Sequence[Any], numbers: Sequence[int], near: Sequence[bool], link: "Link | None" = None) -> None:
        """`near` says of each engine whether it runs on the sender's node: a GPU's memory is reachable from no other."""
        self._handles, self._numbers, self._near = list(handles), list(numbers), list(near)
        self._link = link or Link(handles)

    def begin_update(self, version: int) -> None:
        """Begin on every engine."""
        self._all(lambda handle: handle.begin_update.remote(version))

    def load_bucket(self, bucket: Bucket) -> None:
        """Load on every engine; returns when all have, so one bucket is staged at a time."""
        by_handle = [near and bucket.data.is_cuda for near in self._near]
        # As numpy, which Ray shares without a copy.
        stored = None if all(by_handle) else self._link.put((bucket.entries, bucket.data.cpu().numpy()))
        # A handle is opened once: torch counts the references of each.
        refs = [
            handle.load_handle.remote(self._link.share(bucket)) if direct else handle.load_stored.remote(stored)
            for handle, direct in zip(self._handles, by_handle, strict=True)
        ]
        self._link.wait(refs, self._numbers)

    def end_update(self, version: int, digest: str) -> None:
        """Confirm with every engine."""
        self._all(lambda handle: handle.end_update.remote(version, digest))

    def _all(self, call: Callable[[Any], Any]) -> None:
        self._link.wait([call(handle) for handle in self._handles], self._numbers)


class Link:
    """The few things a fan asks of Ray and CUDA."""

    def __init__(self, handles: Sequence[Any], limits: Limits | None = None) -> None:
        """`limits`: of how long the engines may stand still in one call; None: as long as they live."""
        self._handles, self._limits = list(handles), limits

    def put(self, stored: Any) -> Any:
        """Put a bucket into the object store."""
        return ray.put(stored)

    def share(self, bucket: Bucket) -> Any:
        """Return a handle of a bucket in GPU memory."""
        return share(bucket)

    def wait(self, refs: Sequence[Any], numbers: Sequence[int]) -> None:
        """Wait for calls to engines `numbers`."""
        wait_engines(refs, numbers, self._handles, self._limits)


def wait_engines(refs: Sequence[Any], numbers: Sequence[int], handles: Sequence[Any] = (), limits: Limits | None = None) -> None:
    """Wait for calls to engines `numbers`; raises EngineLostError for one that died, or stands still for longer than `limits`."""
    vigil = Vigil(handles, limits) if limits is not None else None
    try:
        get_all(refs, "weight update", who=lambda position: f"engine {numbers[position]}", vigil=vigil)
    except ActorLostError as error:
        raise EngineLostError(numbers[error.number], str(error)) from error


def announcer(
    handles: Sequence[Any], numbers: Sequence[int], root: Path | None, limits: Limits | None = None
) -> Callable[[int], Callable[[], None]]:
    """Return the `announce` of a broadcast channel (root None) or of a disk channel."""

    def announce(version: int) -> Callable[[], None]:
        if root is None:
            refs = [handle.receive_broadcast.remote(version) for handle in handles]
        else:
            refs = [handle.receive_disk.remote(root, version) for handle in handles]
        return lambda: wait_engines(refs, numbers, handles, limits)

    return announce

"""Push to receivers that can be called directly: engines of this process, or stand-ins for engines of other processes."""

from collections.abc import Iterable, Sequence

from lprl_workload.data import NamedTensor, SyncReport
from lprl_workload.sync.channel import Outgoing, Receiver


class LocalChannel:
    """Calls every receiver in turn. A bucket is shared between them, never changed."""

    def __init__(self, receivers: Sequence[Receiver], bucket_bytes: int) -> None:
        self._receivers = tuple(receivers)
        self._bucket_bytes = bucket_bytes

    def push(self, tensors: Iterable[NamedTensor], version: int) -> SyncReport:
        """Send one version to all receivers; raises WeightMismatchError from the first that got something else."""
        out = Outgoing(tensors, self._bucket_bytes)
        for receiver in self._receivers:
            receiver.begin_update(version)
        for bucket in out.buckets():
            for receiver in self._receivers:
                receiver.load_bucket(bucket)
        for receiver in self._receivers:
            receiver.end_update(version, out.digest)
        return out.report(version)

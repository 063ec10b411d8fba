"""WeightChannel: how one version of the weights travels from the trainer to all engines.

The handshake, the same on every transport: begin_update(version) -> load_bucket* -> end_update(version, digest) on every
receiver. A receiver compares the digest of what arrived and raises WeightMismatchError when it differs; it then refuses
to generate until a complete update succeeds. `push` returns only when every receiver confirmed.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Protocol

from lprl_api.model.formats import WeightFormat
from lprl_workload.buckets import Digest, pack
from lprl_workload.data import Bucket, NamedTensor, SyncReport
from lprl_workload.quant.select import Selection
from lprl_workload.sync.serve import ErrorSum, served_tensors


class WeightChannel(Protocol):
    """Sends served-format tensors to every engine of the run, bounded by `bucket_bytes` of staging memory."""

    def push(self, tensors: Iterable[NamedTensor], version: int) -> SyncReport:
        """Send one version; return after every engine confirmed version and digest, else raise WeightMismatchError."""


class Receiver(Protocol):
    """The receiving half of a RolloutEngine, or a stand-in that forwards to one elsewhere."""

    def begin_update(self, version: int) -> None:
        """Stop serving and expect buckets of `version`."""

    def load_bucket(self, bucket: Bucket) -> None:
        """Take the tensors of one bucket."""

    def end_update(self, version: int, digest: str) -> None:
        """Verify and serve `version`; raises WeightMismatchError."""


class Outgoing:
    """The sender's side of one push: buckets, counted and digested as they leave."""

    def __init__(self, tensors: Iterable[NamedTensor], bucket_bytes: int) -> None:
        self._tensors = tensors
        self._bucket_bytes = bucket_bytes
        self._digest = Digest()
        self._started = time.monotonic()
        self._nbytes = 0

    def buckets(self) -> Iterator[Bucket]:
        """Yield the buckets in order."""
        for bucket in pack(self._tensors, self._bucket_bytes):
            self._digest.add_bucket(bucket)
            self._nbytes += bucket.data.numel()
            yield bucket

    @property
    def digest(self) -> str:
        """Digest of everything yielded so far."""
        return self._digest.hexdigest()

    def report(self, version: int) -> SyncReport:
        """Return the report of a finished push (without the quantisation error, which `push_weights` knows)."""
        seconds = time.monotonic() - self._started
        return SyncReport(version, len(self._digest.names), self._nbytes, seconds, 0.0, self.digest)


def push_weights(
    channel: WeightChannel, weights: Iterable[NamedTensor], fmt: WeightFormat, selection: Selection, version: int
) -> SyncReport:
    """Quantise `weights` (BF16, from TrainActor.export_weights) tensor by tensor and push them; never holds the whole model."""
    error = ErrorSum()
    report = channel.push(served_tensors(weights, fmt, selection, error), version)
    return replace(report, relative_rms_error=error.relative_rms)

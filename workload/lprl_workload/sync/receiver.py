"""The receiving half of a RolloutEngine's rank, or a stand-in that forwards to one elsewhere."""

from typing import Protocol

from lprl_workload.data import Bucket
from lprl_workload.sync.checks import Check


class Receiver(Protocol):
    """begin_update -> load_bucket* -> end_update | abort_update. What was begun and not ended well is not served."""

    def begin_update(self, version: int, strong: bool = False) -> None:
        """Stop serving and expect buckets of `version`; `strong`: note checksums of what arrives."""

    def load_bucket(self, bucket: Bucket) -> None:
        """Take the tensors of one bucket; its memory may be reused afterwards."""

    def end_update(self, version: int, check: Check) -> None:
        """Compare what arrived and serve `version`; raises WeightMismatchError."""

    def abort_update(self, why: str) -> None:
        """Give the update up: refuse to serve until a later one ends well."""

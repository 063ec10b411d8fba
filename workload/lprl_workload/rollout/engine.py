"""RolloutEngine: one serving engine."""

from collections.abc import Sequence
from typing import Protocol

from lprl_workload.data import Bucket, Completion, GenerationRequest, SamplingParams


class RolloutEngine(Protocol):
    """Generates responses with low-precision weights and takes new ones between generations.

    Weight update protocol: begin_update(v) -> load_bucket* -> end_update(v, digest). Between begin and end the engine
    refuses `generate`. `end_update` compares the digest of what arrived and raises WeightMismatchError when it differs;
    the engine then stays unusable until a complete update succeeds. Versions must grow.
    """

    @property
    def weight_version(self) -> int:
        """Version of the complete weights being served; -1 before the first update or load."""

    def generate(self, requests: Sequence[GenerationRequest], params: SamplingParams) -> list[Completion]:
        """Return one completion per request, in order."""

    def begin_update(self, version: int) -> None:
        """Stop serving and expect buckets of `version`."""

    def load_bucket(self, bucket: Bucket) -> None:
        """Take tensors in the served format (codes and scales as in a converted checkpoint)."""

    def end_update(self, version: int, digest: str) -> None:
        """Verify that all tensors arrived, flush caches, serve `version`."""

    def sleep(self) -> None:
        """Free KV cache and staging memory while the trainer runs (colocated)."""

    def wake(self) -> None:
        """Undo `sleep`."""

    def healthy(self) -> bool:
        """Return whether the engine can serve."""

    def close(self) -> None:
        """Free everything."""

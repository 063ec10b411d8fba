"""RolloutEngine: one serving engine."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from lprl_workload.data import Bucket
from lprl_workload.rollout.requests import Ability, Chunk, EngineState, Part, PauseMode, Request


class RolloutEngine(Protocol):
    """Generates responses with low-precision weights and takes new ones.

    Weight update protocol: begin_update(v) -> load_bucket* -> end_update(v, digest). Between begin and end the engine
    refuses new requests unless it is paused, and works at none. `end_update` compares the digest of what arrived and raises
    WeightMismatchError when it differs; the engine then stays unusable until a complete update succeeds. Versions must grow.
    Open requests go on with the new weights; no chunk holds tokens of two versions.
    """

    @property
    def can(self) -> frozenset[Ability]:
        """What it can do beyond the core of this contract; tests/contract asks for exactly that."""

    @property
    def weight_version(self) -> int:
        """Version of the complete weights being served; -1 before the first update or load."""

    def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """Stream a response; the last chunk has `finish`. An iterator that is closed early gives its request up.

        Raises:
            UserError: the prompt is empty or leaves no room for a response in the context.
            RuntimeError: the engine cannot serve now (updating, asleep, closed, no weights).

        """

    async def abort(self, ids: Sequence[str] | None = None) -> None:
        """End open requests (all when None; unknown ids are ignored) with finish `abort` and what they have drawn."""

    async def pause(self, mode: PauseMode) -> None:
        """Stop working at requests until `resume`; new ones wait. Returns when nothing is being computed any more."""

    async def resume(self) -> None:
        """Go on; without a pause nothing."""

    async def sleep(self, parts: frozenset[Part]) -> None:
        """Free memory while others need it. `kv` also bars requests; `weights` are gone and must be pushed again after `wake`.

        Raises RuntimeError while requests hold what is to be freed: abort or retract them first.
        """

    async def wake(self, parts: frozenset[Part]) -> None:
        """Take the memory back: `weights` before a push, `kv` before the next request."""

    async def state(self) -> EngineState:
        """Return how it is; never waits for generation."""

    def begin_update(self, version: int) -> None:
        """Stop serving and expect buckets of `version`."""

    def load_bucket(self, bucket: Bucket) -> None:
        """Take tensors in the served format (codes and scales as in a converted checkpoint)."""

    def end_update(self, version: int, digest: str) -> None:
        """Verify that all tensors arrived, flush caches, serve `version`."""

    def healthy(self) -> bool:
        """Return whether the engine can serve."""

    def close(self) -> None:
        """Free everything; open requests fail."""

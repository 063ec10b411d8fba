"""RolloutEngine: one serving engine."""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Protocol

from lprl_workload.data import Bucket
from lprl_workload.rollout.requests import Ability, Chunk, EngineState, Part, PauseMode, Request
from lprl_workload.sync.checks import Check
from lprl_workload.sync.routes import EngineLayout


class Sampler(Protocol):
    """What draws, all that rollouts need of an engine."""

    def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """Stream a response; the last chunk has `finish`. An iterator that is closed early gives its request up.

        Raises:
            UserError: the prompt is empty or leaves no room for a response in the context.
            RuntimeError: the engine cannot serve now (updating, asleep, closed, no weights).

        """


def mildest_pause(can: frozenset[Ability]) -> PauseMode:
    """Return the way to stand still that costs open requests least."""
    return "in-place" if "in-place-pause" in can else "retract"


class RolloutEngine(Sampler, Protocol):
    """Generates responses with low-precision weights and takes new ones.

    Weight update protocol: begin_update(v) -> load_bucket* -> end_update(v, check) | abort_update(why). Between begin and end the
    engine refuses new requests, and works at none. `end_update` compares what arrived with `check` and raises WeightMismatchError
    when it differs; then, and after abort_update, the engine stays unusable until a complete update succeeds. Versions must grow.
    Open requests go on with the new weights; no chunk holds tokens of two versions. A paused engine takes new requests whatever its
    weights are; they wait.
    """

    @property
    def can(self) -> frozenset[Ability]:
        """What it can do beyond the core of this contract; tests/contract asks for exactly that."""

    @property
    def weight_version(self) -> int:
        """Version of the complete weights being served; -1 before the first update or load."""

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

    def layout(self) -> EngineLayout:
        """Return what its ranks can take, by which ways, and what they can check (its number and node are for others to say)."""

    def begin_update(self, version: int, strong: bool = False) -> None:
        """Stop serving and expect buckets of `version`; `strong`: note checksums of what arrives."""

    def load_bucket(self, bucket: Bucket) -> None:
        """Take tensors in the served format (codes and scales as in a converted checkpoint)."""

    def end_update(self, version: int, check: Check) -> None:
        """Verify that all tensors arrived as they were sent, flush caches, serve `version`."""

    def abort_update(self, why: str) -> None:
        """Give the update up: refuse to serve until a later one ends well."""

    def probe(self, ids: Sequence[int]) -> tuple[float, ...]:
        """Return the log-probabilities of ids[1:] given what precedes each, temperature 1, by the weights just loaded; also asleep."""

    def held(self, bucket_bytes: int) -> Iterator[Bucket]:
        """Yield what is served in this engine's own layout, for another of its kind."""

    def load_held(self, bucket: Bucket) -> None:
        """After begin_update: take a bucket that another engine of the same kind and format held."""

    def end_held(self, version: int) -> None:
        """Serve `version`; raises WeightMismatchError unless all of it came."""

    def healthy(self) -> bool:
        """Return whether the engine can serve."""

    def lost(self) -> Exception | None:
        """Return why it will never serve again, None while it may: a server of its own can die while the engine's process lives."""

    def close(self) -> None:
        """Free everything; open requests fail."""

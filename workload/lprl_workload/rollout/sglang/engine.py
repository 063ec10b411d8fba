"""SglangEngine: the unmodified SGLang server in processes of its own, behind the engine contract (see docs/serving-sglang.md)."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lprl_api.model.formats import WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_workload.data import Bucket
from lprl_workload.process.errors import WeightMismatchError
from lprl_workload.process.movement import here
from lprl_workload.rollout.requests import Ability, Chunk, EngineState, Part, PauseMode, Request
from lprl_workload.rollout.responses import Responses, stream
from lprl_workload.rollout.sglang.arguments import ServerOptions
from lprl_workload.rollout.sglang.client import Client
from lprl_workload.rollout.sglang.desk import Desk, Facts
from lprl_workload.rollout.sglang.launched import Launched, Watched, launch, settings_of, wait_ready
from lprl_workload.rollout.sglang.releases import Release
from lprl_workload.rollout.sglang.standing import Standing
from lprl_workload.rollout.sglang.weights import Weights
from lprl_workload.sync.checks import Check
from lprl_workload.sync.routes import EngineLayout

FLUSH_S = 30.0
TOGETHER_CPU = 64
"""Requests that go to a server on a CPU as one, at most. On GPUs each goes by itself: what going together does there was not measured."""
ALONE = ServerOptions()
"""One rank, which sleeps where others need its memory."""
TAGS: dict[Part, tuple[Any, ...]] = {"weights": ("weights",), "kv": ("kv_cache",)}


class SglangEngine:
    """A RolloutEngine that owns one server (see rollout/engine.py for the protocol)."""

    def __init__(
        self,
        folder: Path,
        fmt: WeightFormat,
        shape: ModelShape,
        device: torch.device | str = "cpu",
        *,
        context_length: int | None = None,
        max_concurrency: int | None = None,
        memory_fraction: float = 0.7,
        server: ServerOptions = ALONE,
    ) -> None:
        """Start a server of `folder` in `fmt` and wait until it serves; its weights come by an update.

        Args:
            folder: Hugging Face folder: config.json (of any format), tokenizer files, generation_config.json.
            fmt: served format.
            shape: of the model.
            device: torch device of its first rank.
            context_length: longest prompt plus response, tokens; default the model's.
            max_concurrency: requests in work at a time; default the server's.
            memory_fraction: share of a GPU's memory for weights and KV cache.
            server: the rest.

        Raises:
            UserError: SGLang is not there, or does not take this model, format or setting. ServerLostError: it died on its way.

        """
        self._shape, self._device = shape, torch.device(device)
        self._responses = Responses(folder, min(context_length or shape.max_positions, shape.max_positions))
        self._asleep: frozenset[Part] = frozenset()
        self._paused: PauseMode | None = None
        told = partial(settings_of, fmt, shape, self._device, self._responses.context, max_concurrency, memory_fraction, server)
        self._begin(launch(folder, shape, told), fmt, server.tensor)

    def _begin(self, server: Launched, fmt: WeightFormat, ranks: int) -> None:
        self._server: Launched | None = server
        together = 1 if self._device.type == "cuda" else TOGETHER_CPU
        facts = Facts(lambda: self.weight_version, server.lost, self._responses.end_ids, self._shape.vocab, together)
        self._desk = Desk(lambda: Client(server.address, server.data_key, server.admin_key), facts)
        self._control = Watched(server)
        try:
            wait_ready(server, lambda: self._desk.run(self._desk.client.serves()))
            release = self._release = Release.of(self._control.server_info(), self._control.api())
            release.check(self._shape, fmt)
            self._still = Standing(self._desk, self._control, release.weight_versions)
            self._weights = Weights(self._control, release, ranks)
        except BaseException:
            self.close()
            raise

    @property
    def weight_version(self) -> int:
        """Version of the complete weights being served; -1 before the first update."""
        return self._weights.version

    @property
    def can(self) -> frozenset[Ability]:
        """See `requests.Ability`: what the running release does. Requests have no random streams of their own."""
        found: set[Ability] = set()
        if self._release.weight_versions:
            found.add("in-place-pause")
        return frozenset(found)

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """Stream a response; see RolloutEngine."""
        refusal = self._refusal()
        if refusal is not None and not (self._paused is not None and self._server is not None and not self._asleep):
            raise refusal
        row = self._responses.row(request)
        async with aclosing(stream(partial(self._desk.submit, row), lambda: self._desk.drop(request.id))) as chunks:
            async for chunk in chunks:
                yield chunk

    async def abort(self, ids: Sequence[str] | None = None) -> None:
        """End open requests with what they have drawn."""
        await self._desk.aside(self._desk.abort(ids, self._still.inside))

    async def pause(self, mode: PauseMode) -> None:
        """Work at nothing until `resume`."""
        self._paused = mode
        await asyncio.to_thread(self._still.stand, mode)
        if mode == "abort":
            await self.abort()

    async def resume(self) -> None:
        """Go on."""
        self._paused = None
        await asyncio.to_thread(self._settle)

    def _settle(self) -> None:
        """Let requests be worked at where nothing speaks against it."""
        if self._paused is not None or self._refusal() is not None:
            return
        self._still.go()

    async def state(self) -> EngineState:
        """Return how it is: nothing here waits for the server's work."""
        streaming, held = self._desk.counts
        queued = min(streaming, await self._desk.aside(self._desk.client.queued())) if streaming and not self._still.inside else 0
        alive = self._server is not None and self._server.process.code is None
        ready = alive and self._refusal() is None and self._paused is None
        return EngineState(alive, ready, self.weight_version, streaming - queued, held + queued)

    def layout(self) -> EngineLayout:
        """Return what it takes: whole tensors under Hugging Face names, in this process, by every way that reaches it."""
        return EngineLayout(device=str(self._device))

    def begin_update(self, version: int, strong: bool = False) -> None:
        """Stop working and expect buckets of `version`. Raises WeightMismatchError unless it is newer than the one served."""
        self._there()
        if "weights" in self._asleep:
            raise RuntimeError("begin_update while the weights sleep: call wake first")
        if version > self._weights.version:
            self._still.stand("in-place")
        self._weights.begin(version, strong)

    def load_bucket(self, bucket: Bucket) -> None:
        """Take tensors in the served format; the bucket's memory may be reused afterwards."""
        self._there()
        self._weights.load(bucket)
        here.tick()

    def end_update(self, version: int, check: Check) -> None:
        """Verify that all tensors of `version` arrived as they were sent, then serve them; raises WeightMismatchError."""
        self._there()
        self._weights.end(version, check)
        self._settle()

    def abort_update(self, why: str) -> None:
        """Give a begun update up: the engine refuses to serve until a later one ends well."""
        self._weights.abort(why)

    def probe(self, ids: Sequence[int]) -> tuple[float, ...]:
        """Return the log-probabilities of ids[1:]; also while the cache sleeps, or the server stands still: it goes on for a moment."""
        refusal = self._refusal(awake=False)
        if refusal is not None:
            raise refusal
        asleep = "kv" in self._asleep
        if asleep:
            self._control.occupy(TAGS["kv"])
        try:
            with self._still.for_a_moment():
                return self._desk.run(self._scored(ids))
        finally:
            if asleep:
                self._control.flush(FLUSH_S)
                self._control.release(TAGS["kv"])

    async def _scored(self, ids: Sequence[int]) -> tuple[float, ...]:
        try:
            return await self._desk.client.score(ids)
        except RuntimeError:
            raise
        except Exception as error:
            raise await asyncio.to_thread(self._there().lost, error) from error

    def held(self, bucket_bytes: int) -> Iterator[Bucket]:
        """Yield what the server computes with, in its own layout, for another engine of this kind."""
        self._there()
        yield from self._weights.held(bucket_bytes)

    def load_held(self, bucket: Bucket) -> None:
        """Take a bucket that another engine held."""
        self._there()
        self._weights.load_held(bucket)
        here.tick()

    def end_held(self, version: int) -> None:
        """Serve what another engine held as `version`; raises WeightMismatchError unless all of it came."""
        self._there()
        self._weights.end_held(version)
        self._settle()

    async def sleep(self, parts: frozenset[Part]) -> None:
        """Free the cache, and the weights: those must be pushed again. The cache is flushed before any memory goes."""
        if any(self._desk.counts):
            raise RuntimeError("sleep while requests are open: abort them first")
        await asyncio.to_thread(self._sleep, parts)

    def _sleep(self, parts: frozenset[Part]) -> None:
        going = parts - self._asleep
        self._desk.shut_gate()
        if "kv" not in self._asleep:
            self._control.flush(FLUSH_S)
        for part in sorted(going):
            self._control.release(TAGS[part])
        if "weights" in going:
            self._weights.dropped()
        self._asleep |= parts

    async def wake(self, parts: frozenset[Part]) -> None:
        """Undo `sleep`."""
        for part in sorted(parts & self._asleep, reverse=True):
            await asyncio.to_thread(self._control.occupy, TAGS[part])
        self._asleep -= parts
        await asyncio.to_thread(self._settle)

    def healthy(self) -> bool:
        """Return whether the engine can serve, or will once the running update ends or it is woken."""
        alive = self._server is not None and self._server.process.code is None
        return alive and not isinstance(self._weights.refusal(), WeightMismatchError)

    def lost(self) -> Exception | None:
        """Return the error of a server that ended by itself, None while there is one."""
        code = self._server.process.code if self._server is not None else None
        return self._server.ended(code) if self._server is not None and code is not None else None

    def close(self) -> None:
        """Kill the server and free everything; open requests fail."""
        server, self._server = self._server, None
        if server is not None:
            server.process.stop()
            self._desk.close(RuntimeError("the engine is closed"))
            self._control.close()
            if hasattr(self, "_weights"):
                self._weights.close()
            server.close()

    def _there(self) -> Launched:
        if self._server is None:
            raise RuntimeError("the engine is closed")
        if (error := self.lost()) is not None:
            raise error
        return self._server

    def _refusal(self, awake: bool = True) -> Exception | None:
        """Return why it cannot serve now, None when it can; `awake` false: sleep is no reason."""
        if self._server is None:
            return RuntimeError("the engine is closed")
        if (error := self.lost()) is not None:
            return error
        refusal = self._weights.refusal()
        asleep = RuntimeError("generate while the engine sleeps: call wake first") if self._asleep and awake else None
        return refusal or asleep

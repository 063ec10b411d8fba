"""TorchEngine: the served arithmetic in this process, with a KV cache. The default engine of a laptop."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path

import torch

from lprl_api.model.formats import WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_workload.data import Bucket
from lprl_workload.hf.model import compute_dtype
from lprl_workload.hf.served import ServedModel
from lprl_workload.process.errors import WeightMismatchError
from lprl_workload.rollout.kv_cache import bytes_per_token, free_cache_bytes
from lprl_workload.rollout.pool import ROWS
from lprl_workload.rollout.requests import Ability, Chunk, EngineState, Part, PauseMode, Request
from lprl_workload.rollout.responses import Responses, stream
from lprl_workload.rollout.scheduler import Scheduler, row_quantum, rows_are_independent, widths
from lprl_workload.rollout.worker import Worker
from lprl_workload.sync.buckets import pack, unpack
from lprl_workload.sync.checks import Arrived, Check
from lprl_workload.sync.routes import EngineLayout


class TorchEngine:
    """A RolloutEngine on one device (see rollout/engine.py for the protocol)."""

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
    ) -> None:
        """Build the model and tokenizer of `folder`; weights come from `load_folder` or an update.

        Args:
            folder: Hugging Face folder: config.json, tokenizer files, generation_config.json and, for `load_folder`, weights
                in the served format.
            fmt: served format.
            shape: of the model.
            device: torch device.
            context_length: longest prompt plus response, tokens; default the model's.
            max_concurrency: rows generated at a time; default 512, fewer where the cache would not fit.
            memory_fraction: share of a GPU's free memory the KV cache may take.

        """
        self._folder, self._shape, self._device = folder, shape, torch.device(device)
        self._responses = Responses(folder, min(context_length or shape.max_positions, shape.max_positions))
        self._max_rows, self._memory_fraction = max_concurrency or ROWS, memory_fraction
        self._served: ServedModel | None = ServedModel(folder, fmt, shape, self._device)
        self._version = -1
        self._incoming: int | None = None
        self._arrived = Arrived(strong=False)
        self._broken = ""
        self._asleep: frozenset[Part] = frozenset()
        self._worker = Worker(self._scheduler(), lambda: self._version, lambda: bool(self._refusal()))

    @property
    def weight_version(self) -> int:
        """Version of the complete weights being served; -1 before the first update or load."""
        return self._version

    @property
    def end_ids(self) -> frozenset[int]:
        """Token ids that end a response, from generation_config.json and the tokenizer."""
        return self._responses.end_ids

    def load_folder(self) -> None:
        """Load the folder's own weights as version 0; raises UserError when a tensor is missing."""
        self._model().load_folder(self._folder)
        self._version = max(self._version, 0)

    @property
    def can(self) -> frozenset[Ability]:
        """See `requests.Ability`; rows are independent where this CPU's matrix products are and the arithmetic is known here."""
        found: set[Ability] = {"seed-exact", "in-place-pause", "disk"}
        if self._shape.family != "other" and rows_are_independent(str(self._device), self._shape.hidden, self._shape.ffn):
            found.add("batch-invariant")
        return frozenset(found | ({"cuda-ipc", "nccl"} if self._device.type == "cuda" else set()))

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """Stream a response; see RolloutEngine."""
        refusal = self._refusal()
        if refusal is not None and not (self._worker.paused and self._served is not None and not self._asleep):
            raise refusal
        row = self._responses.row(request)
        async with aclosing(stream(partial(self._worker.submit, row), lambda: self._worker.drop([request.id]))) as chunks:
            async for chunk in chunks:
                yield chunk

    async def abort(self, ids: Sequence[str] | None = None) -> None:
        """End open requests with what they have drawn."""
        await asyncio.to_thread(self._worker.abort, ids)

    async def pause(self, mode: PauseMode) -> None:
        """Stop working at requests until `resume`."""
        await asyncio.to_thread(self._worker.pause, mode == "retract")
        if mode == "abort":
            await self.abort()

    async def resume(self) -> None:
        """Go on."""
        self._worker.resume()

    async def state(self) -> EngineState:
        """Return how it is, without waiting for a step."""
        ready = self._refusal() is None and not self._worker.paused
        return EngineState(self._served is not None, ready, self._version, *self._worker.counts)

    def layout(self) -> EngineLayout:
        """Return what it takes: whole tensors under Hugging Face names, on one device, by every way."""
        return EngineLayout(device=str(self._device))

    def begin_update(self, version: int, strong: bool = False) -> None:
        """Stop serving and expect buckets of `version`; a failed or abandoned update may be begun again.

        Raises:
            WeightMismatchError: `version` is not newer than the one served.

        """
        served = self._model()
        if version <= self._version:
            raise WeightMismatchError(f"update to weight version {version} refused: version {self._version} is being served")
        if "weights" in self._asleep:
            raise RuntimeError("begin_update while the weights sleep: call wake first")
        with self._worker.between_steps():
            self._incoming = version
        self._arrived = Arrived(strong)
        served.begin()

    def load_bucket(self, bucket: Bucket) -> None:
        """Take tensors in the served format; the bucket's memory may be reused afterwards."""
        served = self._model()
        if self._incoming is None:
            raise RuntimeError("load_bucket outside begin_update and end_update")
        self._arrived.add(bucket, self._device)
        for item in unpack(bucket):
            served.load([(item.name, item.tensor.to(self._device))])

    def end_update(self, version: int, check: Check) -> None:
        """Verify that all tensors of `version` arrived as they were sent, then serve them.

        Raises:
            WeightMismatchError: another version was begun, tensors are missing, or what arrived is not what was sent; the engine
                stays unusable until a complete update succeeds.

        """
        served = self._model()
        incoming = self._incoming
        missing = served.missing()
        if incoming != version:
            problem = f"end_update({version}) after begin_update({incoming})"
        elif missing:
            problem = f"{len(missing)} tensors did not arrive, such as {missing[0]}"
        else:
            problem = self._arrived.compare(check)
        self._arrived = Arrived(strong=False)
        self._ended(version, problem)

    def _ended(self, version: int, problem: str) -> None:
        """Serve `version`, or, with a problem, nothing: raises WeightMismatchError."""
        self._broken = f"weight version {version}: {problem}" if problem else ""
        self._version = self._version if problem else version
        with self._worker.between_steps():
            self._incoming = None
        if problem:
            raise WeightMismatchError(self._broken)

    def abort_update(self, why: str) -> None:
        """Give a begun update up: the engine refuses to serve until a later one ends well."""
        with self._worker.between_steps():
            if self._incoming is not None:
                self._broken = f"the update to weight version {self._incoming} was given up: {why}"
                self._incoming = None

    def probe(self, ids: Sequence[int]) -> tuple[float, ...]:
        """Return the log-probabilities of ids[1:], one forward pass without a cache; also while the cache sleeps."""
        with self._worker.between_steps():
            return self._loaded().score(ids)

    def held(self, bucket_bytes: int) -> Iterator[Bucket]:
        """Yield the values it computes with, bucket by bucket."""
        yield from pack(self._loaded().held(), bucket_bytes)

    def load_held(self, bucket: Bucket) -> None:
        """Take values another engine of this kind held."""
        self._model().take_over((item.name, item.tensor) for item in unpack(bucket))

    def end_held(self, version: int) -> None:
        """Serve the values another engine held as `version`; raises WeightMismatchError unless all of them came."""
        missing = self._model().missing()
        self._ended(version, f"another engine did not hand over {len(missing)} tensors, such as {missing[0]}" if missing else "")

    async def sleep(self, parts: frozenset[Part]) -> None:
        """Free the cache, and the weights: those must be pushed again. Updates are accepted while only the cache is gone."""
        await asyncio.to_thread(self._sleep, parts)

    def _sleep(self, parts: frozenset[Part]) -> None:
        with self._worker.between_steps():
            self._worker.scheduler.free()
            if "weights" in parts - self._asleep:
                self._model().drop()
                self._version, self._incoming = -1, None
            self._asleep |= parts
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    async def wake(self, parts: frozenset[Part]) -> None:
        """Undo `sleep`."""
        with self._worker.between_steps():
            if "weights" in parts & self._asleep:
                self._model().restore()
            self._asleep -= parts

    def healthy(self) -> bool:
        """Return whether the engine can serve, or will once the running update ends or it is woken."""
        return self._served is not None and not self._broken

    def lost(self) -> Exception | None:
        """Return nothing: it is lost with its process."""
        return None

    def close(self) -> None:
        """Free everything; the engine is of no use afterwards."""
        self._worker.fail(RuntimeError("the engine is closed"))
        with self._worker.between_steps():
            self._served, self._worker.scheduler = None, self._scheduler()
        gc.collect()

    def _scheduler(self) -> Scheduler:
        """Return an empty scheduler, of no model once the engine is closed."""
        budget = free_cache_bytes(self._device, self._memory_fraction)
        tokens = budget // bytes_per_token(self._shape, compute_dtype(self._device).itemsize)
        model = self._served.model if self._served is not None else torch.nn.Module()
        return Scheduler(model, self._device, self._max_rows, tokens, row_quantum(widths(self._shape)))

    def _model(self) -> ServedModel:
        if self._served is None:
            raise RuntimeError("the engine is closed")
        return self._served

    def _loaded(self) -> ServedModel:
        """Return the model when all of a version's weights are in it, whether or not its cache sleeps."""
        refusal = self._refusal(awake=False)
        if refusal is not None:
            raise refusal
        return self._model()

    def _refusal(self, awake: bool = True) -> Exception | None:
        """Return why it cannot serve now, None when it can; `awake` false: sleep is no reason."""
        if self._served is None:
            return RuntimeError("the engine is closed")
        if self._broken:
            return WeightMismatchError(f"the engine cannot serve: {self._broken}")
        if self._incoming is not None:
            return RuntimeError(f"generate between begin_update({self._incoming}) and end_update")
        if self._asleep and awake:
            return RuntimeError("generate while the engine sleeps: call wake first")
        if self._version < 0:
            return RuntimeError("generate before the first weights: call load_folder or push an update")
        return None

"""TorchEngine: the served arithmetic in this process, with a KV cache. The default engine of a laptop."""

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lprl_api.errors import UserError
from lprl_api.model.formats import WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_workload.buckets import Digest, unpack
from lprl_workload.data import Bucket, Completion, GenerationRequest, SamplingParams
from lprl_workload.hf.model import compute_dtype
from lprl_workload.hf.served import ServedModel
from lprl_workload.process.errors import WeightMismatchError
from lprl_workload.rollout.generation import Row, StopRule, batches, generate_rows
from lprl_workload.rollout.kv_cache import bytes_per_token, free_cache_bytes
from lprl_workload.rollout.tokens import end_token_ids, load_tokenizer

MAX_ROWS = 512


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
        self._folder = folder
        self._shape = shape
        self._device = torch.device(device)
        self._context = min(context_length or shape.max_positions, shape.max_positions)
        self._max_rows = max_concurrency or MAX_ROWS
        self._memory_fraction = memory_fraction
        self._tokenizer: Any = load_tokenizer(folder)
        self._end_ids = end_token_ids(folder, self._tokenizer)
        self._served: ServedModel | None = ServedModel(folder, fmt, shape, self._device)
        self._version = -1
        self._incoming: int | None = None
        self._digest = Digest()
        self._broken = ""
        self._asleep = False

    @property
    def weight_version(self) -> int:
        """Version of the complete weights being served; -1 before the first update or load."""
        return self._version

    @property
    def end_ids(self) -> frozenset[int]:
        """Token ids that end a response, from generation_config.json and the tokenizer."""
        return self._end_ids

    def load_folder(self) -> None:
        """Load the folder's own weights as version 0; raises UserError when a tensor is missing."""
        self._model().load_folder(self._folder)
        self._version = max(self._version, 0)

    def generate(self, requests: Sequence[GenerationRequest], params: SamplingParams) -> list[Completion]:
        """Return one completion per request, in order.

        Raises:
            UserError: a prompt is empty or leaves no room for a response in the context.
            RuntimeError: the engine cannot serve now (updating, asleep, closed, no weights).

        """
        served = self._ready()
        stop = StopRule(self._end_ids | frozenset(params.stop_token_ids), params.stop, self._decode)
        rows = [Row(request, self._limit(request, params)) for request in requests]
        budget = free_cache_bytes(self._device, self._memory_fraction)
        tokens = budget // bytes_per_token(self._shape, compute_dtype(self._device).itemsize)
        for batch in batches(rows, self._max_rows, tokens):
            generate_rows(served.model, batch, params, stop, self._device)
        return [row.completion(self._version) for row in rows]

    def begin_update(self, version: int) -> None:
        """Stop serving and expect buckets of `version`; a failed or abandoned update may be begun again.

        Raises:
            WeightMismatchError: `version` is not newer than the one served.

        """
        served = self._model()
        if version <= self._version:
            raise WeightMismatchError(f"update to weight version {version} refused: version {self._version} is being served")
        self._incoming = version
        self._digest = Digest()
        served.begin()

    def load_bucket(self, bucket: Bucket) -> None:
        """Take tensors in the served format; the bucket's memory may be reused afterwards."""
        served = self._model()
        if self._incoming is None:
            raise RuntimeError("load_bucket outside begin_update and end_update")
        for item in unpack(bucket):
            self._digest.add(item.name, item.tensor)
            served.load([(item.name, item.tensor.to(self._device))])

    def end_update(self, version: int, digest: str) -> None:
        """Verify that all tensors of `version` arrived unchanged, then serve them.

        Raises:
            WeightMismatchError: another version was begun, tensors are missing, or the digest differs; the engine stays
                unusable until a complete update succeeds.

        """
        served = self._model()
        incoming, self._incoming = self._incoming, None
        missing = served.missing()
        found = self._digest.hexdigest()
        if incoming != version:
            self._broken = f"end_update({version}) after begin_update({incoming})"
        elif missing:
            self._broken = f"weight version {version}: {len(missing)} tensors did not arrive, such as {missing[0]}"
        elif found != digest:
            self._broken = f"weight version {version}: digest {found} differs from the sender's {digest}"
        else:
            self._broken, self._version = "", version
        if self._broken:
            raise WeightMismatchError(self._broken)

    def sleep(self) -> None:
        """Free cached memory while the trainer runs; weights stay, and updates are accepted."""
        self._asleep = True
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def wake(self) -> None:
        """Undo `sleep`."""
        self._asleep = False

    def healthy(self) -> bool:
        """Return whether the engine can serve, or will once the running update ends or it is woken."""
        return self._served is not None and not self._broken

    def close(self) -> None:
        """Free everything; the engine is of no use afterwards."""
        self._served = None
        self.sleep()

    def _model(self) -> ServedModel:
        if self._served is None:
            raise RuntimeError("the engine is closed")
        return self._served

    def _ready(self) -> ServedModel:
        served = self._model()
        if self._broken:
            raise WeightMismatchError(f"the engine cannot serve: {self._broken}")
        if self._incoming is not None:
            raise RuntimeError(f"generate between begin_update({self._incoming}) and end_update")
        if self._asleep:
            raise RuntimeError("generate while the engine sleeps: call wake first")
        if self._version < 0:
            raise RuntimeError("generate before the first weights: call load_folder or push an update")
        return served

    def _limit(self, request: GenerationRequest, params: SamplingParams) -> int:
        room = self._context - len(request.prompt_ids)
        if not len(request.prompt_ids) or room < 1:
            raise UserError(
                f"a prompt of {len(request.prompt_ids)} tokens leaves no room in a context of {self._context}",
                "set data.maxPromptTokens below the context length",
            )
        return min(params.max_response_tokens, room)

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))

"""One side of a comparison: a model folder whose layers exist one at a time, in the arithmetic an engine serves them in.

The module tree is transformers' own, without memory (meta device); entering a layer gives its modules memory and reads its weights,
leaving it takes the memory back. Embedding and output head are never whole in float32: rows are looked up in the file, and the head
is multiplied in pieces of its vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lprl_api.errors import UserError
from lprl_api.model.formats import WeightFormat
from lprl_workload.convert.weights import ModelFolder
from lprl_workload.folder.config import check_trainable, read_shape
from lprl_workload.hf.arithmetic import emulate_activations
from lprl_workload.hf.model import build_model, compute_dtype
from lprl_workload.hf.slots import weight_slots
from lprl_workload.quant.scheme import fake_quantize

PARTS = ("self_attn", "mlp")
"""Modules of a decoder layer that hold its matrices, the same in every architecture the trainer knows."""
HEAD_PIECE = 1 << 24
"""Elements of the output head held in float32 at a time."""


class Side:
    """A folder's model, run layer by layer on `device`."""

    def __init__(self, folder: Path, device: torch.device | str, requantised: "tuple[Side, WeightFormat] | None" = None) -> None:
        """Read config.json and headers; no weight is read yet.

        Args:
            folder: Hugging Face model folder in any format this project reads.
            device: where layers are computed; arithmetic is in its compute dtype.
            requantised: compute with `folder`'s weights quantised on the way to this format, those that the given side has quantised.

        Raises:
            UserError: the folder is no model that can be computed here.

        """
        check_trainable(folder)
        self.folder, self.device = folder, torch.device(device)
        self.shape = read_shape(folder)
        if self.shape.family == "other":
            what = f"{folder}: {self.shape.architecture} is built by its class, whose layers cannot be run one by one"
            raise UserError(what, "answers are compared of families with a table (docs/families.md)")
        self.dtype = compute_dtype(self.device)
        self._files = ModelFolder(folder)
        self._like = requantised
        self.fmt: WeightFormat = requantised[1] if requantised else self._files.fmt
        self.model: Any = build_model(folder, self.shape, "meta", self.dtype).requires_grad_(False)
        slots = weight_slots(self.model, self.shape)
        like = requantised[0]._files if requantised else self._files
        self.quantized = frozenset(slot.name for slot in slots if like.is_quantized(slot.name))
        emulate_activations(self.model, slots, self.quantized, self.fmt)
        decoder = self.model.model
        with self.device:
            self._rotary = type(decoder.rotary_emb)(self.model.config)

    @property
    def layers(self) -> int:
        """Decoder layers."""
        return len(self.model.model.layers)

    def holds_quantized(self, layer: int, part: str) -> bool:
        """Return whether a matrix of `part` (of PARTS) of a layer is quantised."""
        prefix = f"model.layers.{layer}.{part}."
        return any(name.startswith(prefix) for name in self.quantized)

    @contextmanager
    def layer(self, number: int) -> Iterator[nn.Module]:
        """Give decoder layer `number` with its weights; they are gone afterwards."""
        with self._loaded(self.model.model.layers[number], f"model.layers.{number}.") as module:
            yield module

    def embed(self, ids: Tensor) -> Tensor:
        """Return the embeddings [T, H] of token ids [T], on the CPU, in the compute dtype."""
        return self._files.weight("model.embed_tokens.weight").values()[ids].to(torch.bfloat16).to(self.dtype)

    def run(self, module: nn.Module, hidden: Tensor) -> Tensor:
        """Return the output [B, T, H] of a layer for hidden states [B, T, H], on `device`.

        Rows shorter than T are padded on the right: attention is causal and everything else looks at one token, so no token sees it.
        """
        positions = torch.arange(hidden.shape[1], device=hidden.device).unsqueeze(0)
        out = module(
            hidden,
            attention_mask=None,
            position_ids=positions,
            past_key_values=None,
            use_cache=False,
            position_embeddings=self._rotary(hidden, positions),
        )
        return out if isinstance(out, Tensor) else out[0]

    @contextmanager
    def head(self) -> Iterator["Head"]:
        """Give final norm and output head."""
        name = "model.embed_tokens.weight" if self.shape.tied_embeddings else "lm_head.weight"
        weight = self._files.weight(name).values().to(torch.bfloat16)
        with self._loaded(self.model.model.norm, "model.norm.") as norm:
            yield Head(norm, weight.to(self.device))

    @contextmanager
    def _loaded(self, module: nn.Module, prefix: str) -> Iterator[nn.Module]:
        module.to_empty(device=self.device)
        try:
            for slot in weight_slots(module, self.shape):
                slot.write(self._values(f"{prefix}{slot.name}", slot.is_buffer))
            yield module
        finally:
            module.to("meta")

    def _values(self, name: str, is_buffer: bool) -> Tensor:
        """Return a weight as an engine computes with it: dequantised, or rounded to BF16; router correction biases as they are."""
        stored = self._files.weight(name)
        values = stored.values(self.device)
        if self._like is not None and name in self.quantized:
            return fake_quantize(values.to(torch.bfloat16), self.fmt)
        return values if stored.quantized or is_buffer else values.to(torch.bfloat16)


class Head:
    """Final norm and output head of one side: logits in float32, the head's weight in BF16."""

    def __init__(self, norm: nn.Module, weight: Tensor) -> None:
        """Take the norm and the head's weight [V, H] on one device."""
        self._norm, self._weight = norm, weight

    @property
    def vocabulary(self) -> int:
        """Rows of the head."""
        return int(self._weight.shape[0])

    def logits(self, hidden: Tensor) -> Tensor:
        """Return float32 logits [P, V] of hidden states [P, H]."""
        x = self._norm(hidden)
        if x.is_cuda:
            return torch.mm(x, self._weight.t(), out_dtype=torch.float32)
        out = torch.empty(x.shape[0], self.vocabulary, dtype=torch.float32)
        step = max(1, HEAD_PIECE // x.shape[1])
        for start in range(0, self.vocabulary, step):
            out[:, start : start + step] = x.float() @ self._weight[start : start + step].float().t()
        return out


def check_comparable(source: Side, converted: Side) -> None:
    """Refuse two folders that are not one model in two formats. Raises UserError."""
    remedy = "name the folder this one was made from with --source"
    for field in ("family", "layers", "hidden", "vocab", "heads", "kv_heads"):
        here, there = getattr(converted.shape, field), getattr(source.shape, field)
        if here != there:
            raise UserError(f"{converted.folder}: {field} {here}, {source.folder} has {there}", remedy)
    if not converted.quantized and not source.quantized:
        raise UserError(
            f"{converted.folder}: is {converted.fmt.kind}, as its source is: nothing was converted",
            "name a folder that lprl convert made in FP8 or INT4",
        )

"""Checkpoint names <-> parameters of a transformers model.

A checkpoint stores one matrix per expert and projection (`...experts.3.gate_proj.weight`); transformers 5 keeps them fused:
`...experts.gate_up_proj` [E, 2F, H] (gate rows first) and `...experts.down_proj` [E, H, F]. A slot is one checkpoint tensor as
a view into its parameter. All other names agree.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lprl_api.errors import UserError
from lprl_api.model.model_shape import ModelShape
from lprl_workload.folder.class_layout import ClassLayout
from lprl_workload.folder.class_places import places
from lprl_workload.hf.naming import NAMING, Naming

GATE_UP = ".experts.gate_up_proj"
DOWN = ".experts.down_proj"
LAYOUT = "lprl_layout"
"""Attribute of a model that was built by its class: the layout of its checkpoint."""


@dataclass(frozen=True, slots=True)
class WeightSlot:
    """One tensor of the checkpoint inside a module parameter (or buffer)."""

    name: str
    """Checkpoint name."""
    parameter: str
    """Name of the parameter or buffer in the module tree."""
    index: tuple[int | slice, ...]
    """Where the tensor lies in the parameter; () is all of it."""
    shape: tuple[int, ...]
    tensor: Tensor
    """The parameter or buffer itself."""
    is_buffer: bool = False
    """Router correction biases: float32 in checkpoints, never trained, never rounded."""

    @property
    def rows(self) -> tuple[int, int] | None:
        """The rows [first, last) of the parameter that it is (a part of); None where it is all of it, or lies in one expert's."""
        found = self.index[0] if self.index else None
        return (found.start, found.stop) if isinstance(found, slice) else None

    def read(self) -> Tensor:
        """Return a detached view, in the parameter's dtype."""
        whole = self.tensor.detach()
        return whole[self.index] if self.index else whole

    def write(self, value: Tensor) -> None:
        """Overwrite in place, converting dtype and device; raises UserError naming the tensor when the shape differs."""
        if tuple(value.shape) != self.shape:
            raise UserError(f"tensor {self.name}: found shape {list(value.shape)}, needs {list(self.shape)}")
        self.read().copy_(value)


def weight_slots(model: nn.Module, shape: ModelShape) -> tuple[WeightSlot, ...]:
    """Return a slot for every tensor of the model's checkpoint, sorted by name.

    Tied output heads have no slot of their own. Raises UserError when the model has another number of experts than `shape`, or its class
    keeps its weights in a way no trainer knows.
    """
    layout: ClassLayout | None = getattr(model, LAYOUT, None)
    naming: Naming | None = getattr(model, NAMING, None)
    slots = _slots_of_table(model, shape) if layout is None else _slots_by_class(model, layout)
    if naming is not None:
        slots = [replace(slot, name=naming.stored(slot.name)) for slot in slots]
    return tuple(sorted(slots, key=lambda slot: slot.name))


def _slots_of_table(model: nn.Module, shape: ModelShape) -> list[WeightSlot]:
    slots: list[WeightSlot] = []
    # named_parameters yields a tied parameter once, under its first name: the embedding's.
    for name, parameter in model.named_parameters():
        if name.endswith((GATE_UP, DOWN)):
            slots += _expert_slots(name, parameter, shape)
        else:
            slots.append(WeightSlot(name, name, (), tuple(parameter.shape), parameter))
    slots += [WeightSlot(name, name, (), tuple(b.shape), b, is_buffer=True) for name, b in persistent_buffers(model)]
    return slots


def _slots_by_class(model: nn.Module, layout: ClassLayout) -> list[WeightSlot]:
    buffers = dict(persistent_buffers(model))
    tensors = dict(model.named_parameters()) | buffers
    found = places(layout)
    return [WeightSlot(name, inside, index, shape, tensors[inside], inside in buffers) for name, inside, index, shape in found]


def _expert_slots(name: str, parameter: Tensor, shape: ModelShape) -> list[WeightSlot]:
    prefix, projection = name.rsplit(".", 1)
    experts = parameter.shape[0]
    if shape.moe is None or shape.moe.experts != experts:
        raise UserError(
            f"{name}: the model has {experts} experts, its shape says {shape.moe.experts if shape.moe else 'none'}",
            "restore the config.json the model was published with",
        )
    if projection == "down_proj":
        parts: dict[str, tuple[slice, ...]] = {"down_proj": ()}
    else:
        half = parameter.shape[1] // 2
        parts = {"gate_proj": (slice(0, half),), "up_proj": (slice(half, 2 * half),)}
    rows = parameter.shape[1] // len(parts)
    return [
        WeightSlot(f"{prefix}.{e}.{part}.weight", name, (e, *rest), (rows, parameter.shape[2]), parameter)
        for e in range(experts)
        for part, rest in parts.items()
    ]


def per_expert(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield a checkpoint tensor as it is, or a fused 3-D expert tensor as its per-expert matrices (views) under their names."""
    if not name.endswith((GATE_UP, DOWN)) or tensor.ndim != 3:
        yield name, tensor
        return
    prefix, projection = name.rsplit(".", 1)
    parts = ("gate_proj", "up_proj") if projection == "gate_up_proj" else ("down_proj",)
    for expert, matrix in enumerate(torch.unbind(tensor)):
        for part, rows in zip(parts, torch.chunk(matrix, len(parts)), strict=True):
            yield f"{prefix}.{expert}.{part}.weight", rows


def persistent_buffers(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Return the buffers a checkpoint stores (router correction biases), with their names."""
    found: list[tuple[str, Tensor]] = []
    for prefix, module in model.named_modules():
        for name, buffer in module.named_buffers(prefix, recurse=False):
            if name.rsplit(".", 1)[-1] not in module._non_persistent_buffers_set and isinstance(buffer, torch.Tensor):
                found.append((name, buffer))
    return found


def is_known_extra(name: str, shape: ModelShape) -> bool:
    """Return whether a checkpoint tensor may be left out: a tied head's copy, multi-token-prediction layers, rotary tables."""
    if name == "lm_head.weight":
        return shape.tied_embeddings
    if name.endswith("rotary_emb.inv_freq"):
        return True
    return further_layer(name, shape) is not None


def further_layer(name: str, shape: ModelShape) -> int | None:
    """Return the number of the layer of a checkpoint tensor beyond the decoder's (multi-token prediction), None for others."""
    parts = name.split(".")
    if parts[:2] != ["model", "layers"] or len(parts) < 3 or not parts[2].isdigit():
        return None
    return int(parts[2]) if int(parts[2]) >= shape.layers else None

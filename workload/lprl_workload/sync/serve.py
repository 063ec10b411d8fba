"""Weights -> the tensors an engine serves, with the error that costs. The quantizer is the converter's own.

Nothing here waits for the device: whether values were finite and what the error is stay on it until `Notes.settle`, once a push.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lprl_api.errors import UserError
from lprl_workload.data import NamedTensor
from lprl_workload.process.movement import here
from lprl_workload.quant.batch import Seen
from lprl_workload.quant.scheme import quantize_batch
from lprl_workload.sync.manifest import Entry, ServedAs


@dataclass(slots=True)
class Notes:
    """What was seen while quantising one push, as tensors on the device."""

    names: list[str] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    """Of `names`, some of them each."""

    def add(self, names: Sequence[str], seen: Seen) -> None:
        """Take note of weights `names`."""
        self.names += names
        self.seen.append(seen)

    def settle(self) -> dict[str, tuple[float, float]]:
        """Return (squared error, squared weight) of every quantised tensor: the one wait for the device.

        Raises UserError naming the first tensor with NaN or infinite values.
        """
        if not self.names:
            return {}
        rows = [torch.stack([seen.finite.double(), seen.squared_error, seen.squared_weight]) for seen in self.seen]
        found = torch.cat(rows, dim=1).tolist()
        for name, finite in zip(self.names, found[0], strict=True):
            if not finite:
                raise UserError(f"tensor {name}: NaN or infinite values", "go back to a checkpoint from before they appeared")
        return {name: (error, weight) for name, error, weight in zip(self.names, found[1], found[2], strict=True)}


def quantise_batch(items: Sequence[tuple[Entry, Tensor]], served_as: ServedAs, notes: Notes) -> list[NamedTensor]:
    """Return the served tensors of whole weights, in order; what is not quantised passes unchanged.

    Raises UserError naming a tensor that cannot be quantised; values that are not finite come out at `notes.settle`.
    """
    taken = [(entry.name, tensor) for entry, tensor in items if served_as.quantises(entry)]
    parts: dict[str, dict[str, Tensor]] = {}
    if taken:
        here.tick()
        served, seen = quantize_batch(taken, served_as.fmt)
        notes.add([name for name, _ in taken], seen)
        parts = dict(zip((name for name, _ in taken), served, strict=True))
    found: list[NamedTensor] = []
    for entry, tensor in items:
        here.tick()
        found += [NamedTensor(name, value) for name, value in parts.get(entry.name, {entry.name: tensor}).items()]
    return found

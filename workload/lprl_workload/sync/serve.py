"""Weights -> the tensors an engine serves, with the error that costs. The quantizer is the converter's own.

Nothing here waits for the device: whether values were finite and what the error is stay device scalars until `Notes.settle`, once a push.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from lprl_api.errors import UserError
from lprl_workload.data import NamedTensor
from lprl_workload.process.movement import here
from lprl_workload.quant.scheme import dequantize, module_of, quantize
from lprl_workload.sync.manifest import Entry, ServedAs


@dataclass(slots=True)
class Notes:
    """What was seen while quantising one push, as scalars on the device."""

    finite: dict[str, Tensor] = field(default_factory=dict)
    squared_error: dict[str, Tensor] = field(default_factory=dict)
    """Per tensor, float64."""
    squared_weight: dict[str, Tensor] = field(default_factory=dict)

    def add(self, name: str, weight: Tensor, served: Tensor) -> None:
        """Count one weight and the value the engine computes with, equal shapes."""
        exact = weight.to(torch.float32)
        self.squared_error[name] = (served.to(torch.float32) - exact).square().sum(dtype=torch.float64)
        self.squared_weight[name] = exact.square().sum(dtype=torch.float64)

    def settle(self) -> dict[str, tuple[float, float]]:
        """Return (squared error, squared weight) of every quantised tensor: the one wait for the device.

        Raises UserError naming the first tensor with NaN or infinite values.
        """
        names = list(self.finite)
        if not names:
            return {}
        columns = [
            torch.stack([by_name[name].double() for name in names]) for by_name in (self.finite, self.squared_error, self.squared_weight)
        ]
        found = torch.stack(columns).tolist()
        for name, finite in zip(names, found[0], strict=True):
            if not finite:
                raise UserError(f"tensor {name}: NaN or infinite values", "go back to a checkpoint from before they appeared")
        return {name: (error, weight) for name, error, weight in zip(names, found[1], found[2], strict=True)}


def quantise_batch(items: Sequence[tuple[Entry, Tensor]], served_as: ServedAs, notes: Notes) -> list[NamedTensor]:
    """Return the served tensors of whole weights, in order; what is not quantised passes unchanged.

    Raises UserError naming a tensor that cannot be quantised; values that are not finite come out at `notes.settle`.
    """
    found: list[NamedTensor] = []
    for entry, tensor in items:
        here.tick()
        if not served_as.quantises(entry):
            found.append(NamedTensor(entry.name, tensor))
            continue
        parts = quantize(entry.name, tensor, served_as.fmt, partial(notes.finite.__setitem__, entry.name))
        notes.add(entry.name, tensor, dequantize(parts, module_of(entry.name), served_as.fmt))
        found += [NamedTensor(name, value) for name, value in parts.items()]
    return found

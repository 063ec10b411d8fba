"""BF16 weights -> the tensors an engine serves, with the error that costs. The quantizer is the converter's own."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from lprl_api.model.formats import Bf16, WeightFormat
from lprl_workload.data import NamedTensor
from lprl_workload.quant.scheme import dequantize, module_of, quantize, relative_rms
from lprl_workload.quant.select import Selection


@dataclass(slots=True)
class ErrorSum:
    """Squared quantisation error and squared weights, summed over the quantised tensors of one push."""

    squared_error: float = 0.0
    squared_weight: float = 0.0
    tensors: int = 0

    @property
    def relative_rms(self) -> float:
        """Root-mean-square error relative to the weights' root mean square; 0 when nothing was quantised."""
        return relative_rms(self.squared_error, self.squared_weight)

    def add(self, weight: torch.Tensor, served: torch.Tensor) -> None:
        """Count one weight and the value the engine computes with, equal shapes."""
        exact = weight.to(torch.float32)
        self.squared_error += float((served.to(torch.float32) - exact).square().sum(dtype=torch.float64))
        self.squared_weight += float(exact.square().sum(dtype=torch.float64))
        self.tensors += 1


def served_tensors(named: Iterable[NamedTensor], fmt: WeightFormat, selection: Selection, error: ErrorSum) -> Iterator[NamedTensor]:
    """Yield the served tensors of `named` (BF16, Hugging Face names) one weight at a time, adding to `error` on the way.

    Tensors that `selection` leaves alone pass unchanged. Raises UserError naming a tensor that cannot be quantised.
    """
    for item in named:
        if isinstance(fmt, Bf16) or not selection.selects(item.name, tuple(item.tensor.shape)):
            yield item
            continue
        parts = quantize(item.name, item.tensor, fmt)
        error.add(item.tensor, dequantize(parts, module_of(item.name), fmt))
        for name, tensor in parts.items():
            yield NamedTensor(name, tensor)

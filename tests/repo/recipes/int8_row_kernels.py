"""File 3 of the recipe: the arithmetic."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lprl_workload.quant.kernels import Kernels
from lprl_workload.quant.slab import SlabEncoder, raw_bytes
from lprl_workload.quant.source import Check, refuse, rounded


def rows_of(weight: Tensor, check: Check = refuse) -> tuple[Tensor, Tensor]:
    x = rounded(weight).float()
    absmax = x.abs().amax(dim=-1, keepdim=True)
    check(torch.isfinite(absmax).all())
    scale = torch.div(absmax, torch.full_like(absmax, 127.0)).clamp(min=1e-30)
    return torch.div(x, scale).round().to(torch.int8), scale


class RowKernels:
    def quantize(self, weight: Tensor, fmt: object, check: Check) -> tuple[Tensor, ...]:
        return rows_of(weight, check)

    def dequantize(self, parts: Sequence[Tensor], fmt: object) -> Tensor:
        return parts[0].float() * parts[1]

    def fake_quantize(self, weight: Tensor, fmt: object) -> Tensor:
        codes, scale = rows_of(weight)
        return codes.float() * scale

    def tail(self, rows: int, cols: int) -> tuple[Tensor, ...]:
        return ()

    def encoder(self, fmt: object, cols: int) -> SlabEncoder:
        return RowEncoder(cols)


class RowEncoder(SlabEncoder):
    def encode(self, x: Tensor) -> tuple[memoryview, memoryview]:
        codes, scale = rows_of(x)
        self._groups += len(x)
        self._note(x, codes.float() * scale, 0, 0)
        return raw_bytes(codes), raw_bytes(scale)


KERNELS: Kernels = RowKernels()

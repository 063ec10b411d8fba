"""MXFP4 -> BF16: E2M1 values times powers of two, which BF16 holds exactly."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lprl_api.model.formats import Format
from lprl_api.model.formats.mxfp4 import GROUP
from lprl_workload.quant.batch import Quantised
from lprl_workload.quant.kernels import Kernels
from lprl_workload.quant.slab import SlabEncoder
from lprl_workload.quant.source import Check, split_last

VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Of the codes 0 to 7; bit 3 is the sign."""
BIAS = 127
"""Of the scales' exponents (E8M0)."""
NOT_A_NUMBER = 255
"""The exponent that stands for NaN."""


def decode(blocks: Tensor, scales: Tensor) -> Tensor:
    """Return bfloat16 [N, 32 G] of uint8 blocks [N, G, 16] and scales [N, G]. Raises ValueError for a scale that is NaN."""
    if bool((scales == NOT_A_NUMBER).any()):
        raise ValueError("NaN or infinite values")
    table = torch.tensor([*VALUES, *(-value for value in VALUES)])
    codes = torch.stack((blocks & 15, blocks >> 4), dim=-1).flatten(-2)
    values = torch.ldexp(table[codes.long()], (scales.int() - BIAS).unsqueeze(-1))
    return values.flatten(-2).to(torch.bfloat16)


class Mxfp4Kernels:
    """See Kernels; no weight is ever quantised to it."""

    def quantize(self, weight: Tensor, fmt: Format, check: Check) -> tuple[Tensor, ...]:
        """Raises ValueError."""
        raise ValueError(READ_ONLY)

    def batch(self, weights: Sequence[Tensor], fmt: Format) -> Quantised | None:
        """Raises ValueError."""
        raise ValueError(READ_ONLY)

    def dequantize(self, parts: Sequence[Tensor], fmt: Format) -> Tensor:
        """See Kernels; bfloat16."""
        codes, scales = parts
        return decode(split_last(codes, GROUP // 2), scales)

    def fake_quantize(self, weight: Tensor, fmt: Format) -> Tensor:
        """Raises ValueError."""
        raise ValueError(READ_ONLY)

    def tail(self, rows: int, cols: int) -> tuple[Tensor, ...]:
        """See Kernels."""
        return ()

    def encoder(self, fmt: Format, cols: int) -> SlabEncoder:
        """Raises ValueError."""
        raise ValueError(READ_ONLY)


READ_ONLY = "MXFP4 is read, and never written"
KERNELS: Kernels = Mxfp4Kernels()

"""MXFP4 -> BF16: E2M1 values times powers of two, which BF16 holds exactly."""

import torch
from torch import Tensor

VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Of the codes 0 to 7; bit 3 is the sign."""
BIAS = 127
"""Of the scales' exponents (E8M0)."""


def decode(blocks: Tensor, scales: Tensor) -> Tensor:
    """Return bfloat16 [N, 32 G] of uint8 blocks [N, G, 16] and scales [N, G]."""
    table = torch.tensor([*VALUES, *(-value for value in VALUES)])
    codes = torch.stack((blocks & 15, blocks >> 4), dim=-1).flatten(-2)
    values = torch.ldexp(table[codes.long()], (scales.int() - BIAS).unsqueeze(-1))
    return values.flatten(-2).to(torch.bfloat16)

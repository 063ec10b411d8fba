"""Symmetric INT4, one BF16 scale per group of input channels, in the compressed-tensors `pack-quantized` layout.

For a group with largest magnitude `absmax`, in fp32 except where said:

    scale = bf16(max(absmax / 7, 1e-5))                     rounded to the stored dtype *first*
    q     = clamp(round_half_even(weight * (1 / scale)), -7, 7)

so that the trained fake weight bf16(q * scale) is exactly the one an engine computes from the file. (Quantising with the
unrounded scale, as other tools do, leaves 0.16 % relative RMS between the two.)

Layout of X: `X.weight_packed` int32 [N, K/8], eight nibbles of q + 8 a word, the lowest nibble first; `X.weight_scale` bf16
[N, K/G]; `X.weight_shape` int64 [2] = (N, K). Reading accepts foreign files too: code -8, other scales, scales of other dtypes.

Legend: N,K weight rows,cols; G group size; a leading `...` is any batch (experts).
"""

import torch
from torch import Tensor

from lprl_workload.quant.source import Check, refuse, rounded, split_last

QMAX = 7.0
MIN_SCALE = 1e-5
PER_WORD = 8


def check_groups(cols: int, group: int) -> None:
    """Raise ValueError unless `group` divides `cols`: no engine reads a shorter last group."""
    if cols % group:
        raise ValueError(f"{cols} input channels; needs a multiple of the group size {group}")


def quantize_int4(weight: Tensor, group: int, check: Check = refuse) -> tuple[Tensor, Tensor]:
    """Quantise [..., N, K] to (q int8 [..., N, K] in -7..7, scale bfloat16 [..., N, K/group]).

    Raises ValueError for NaN or infinite input (unless `check` takes that for later) and where K is no multiple of `group`.
    """
    check_groups(weight.shape[-1], group)
    x = split_last(rounded(weight).float(), group)
    absmax = x.abs().amax(dim=-1, keepdim=True)
    check(torch.isfinite(absmax).all())
    # A tensor divisor: CUDA turns division by a Python number into a product with its reciprocal.
    scale = torch.div(absmax, torch.full_like(absmax, QMAX)).clamp(min=MIN_SCALE).to(torch.bfloat16)
    q = (x * torch.reciprocal(scale.float())).round_().clamp_(-QMAX, QMAX).to(torch.int8)
    return q.flatten(-2), scale.squeeze(-1)


def pack(q: Tensor) -> Tensor:
    """Pack int8 codes -8..7 [..., K] into int32 [..., K/8]; K must be a multiple of 8."""
    nibbles = split_last(q.to(torch.int32) + 8, PER_WORD)
    shifts = torch.arange(0, 4 * PER_WORD, 4, dtype=torch.int32, device=q.device)
    # Disjoint bits: a wrapping int32 sum is their bitwise or.
    return torch.bitwise_left_shift(nibbles, shifts).sum(dim=-1, dtype=torch.int32)


def unpack(packed: Tensor, cols: int) -> Tensor:
    """Undo `pack`: int32 [..., ceil(cols/8)] -> int8 [..., cols] in -8..7."""
    shifts = torch.arange(0, 4 * PER_WORD, 4, dtype=torch.int32, device=packed.device)
    nibbles = torch.bitwise_right_shift(packed.unsqueeze(-1), shifts) & 15
    return (nibbles - 8).to(torch.int8).flatten(-2)[..., :cols]


def dequantize_int4(q: Tensor, scale: Tensor) -> Tensor:
    """Return q * scale rounded to bfloat16, [..., N, K]; the group is K / (groups of scale)."""
    group = q.shape[-1] // scale.shape[-1]
    values = split_last(q, group).float() * scale.float().unsqueeze(-1)
    return values.flatten(-2).to(torch.bfloat16)

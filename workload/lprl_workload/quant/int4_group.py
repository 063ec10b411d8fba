"""Symmetric INT4, one BF16 scale per group of input channels, in the compressed-tensors `pack-quantized` layout.

For a group with largest magnitude `absmax`, in fp32 except where said:

    scale = bf16(max(absmax / 7, 2^-126))                   rounded to the stored dtype *first*
    q     = clamp(round_half_even(weight * (1 / scale)), -7, 7)

so that the trained fake weight bf16(q * scale) is exactly the one an engine computes from the file. (Quantising with the
unrounded scale, as other tools do, leaves 0.16 % relative RMS between the two.) The least scale is the least normal number: its
reciprocal is finite. Grid `source` tries four scales and takes, group by group, the one with the smallest largest error (the first
where they are equal): that of absmax / 7, absmax / 8 with codes -8 to 7, and the BF16 numbers next to the first. So the codes and
scales of an INT4 checkpoint come out as they were, whichever way it was made (docs/adr/0030).

Layout of X: `X.weight_packed` int32 [N, K/8], eight nibbles of q + 8 a word, the lowest nibble first; `X.weight_scale` bf16
[N, K/G]; `X.weight_shape` int64 [2] = (N, K). Reading accepts foreign files too: code -8, other scales, scales of other dtypes.

Legend: N,K weight rows,cols; G group size; a leading `...` is any batch (experts).
"""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from lprl_api.model.formats import Int4Group
from lprl_api.model.formats.int4_group import Grid
from lprl_workload.quant.batch import Quantised
from lprl_workload.quant.kernels import Kernels
from lprl_workload.quant.slab import SlabEncoder, raw_bytes
from lprl_workload.quant.source import Check, refuse, rounded, split_last, tiles
from lprl_workload.quant.triton.available import usable

QMAX = 7.0
MIN_SCALE = 2.0**-126
PER_WORD = 8
LOWEST = 8.0
"""Magnitude of the code that grid `source` has beside those of the symmetric one."""


def check_groups(cols: int, group: int) -> None:
    """Raise ValueError unless `group` divides `cols`: no engine reads a shorter last group."""
    if cols % group:
        raise ValueError(f"{cols} input channels; needs a multiple of the group size {group}")


def quantize_int4(weight: Tensor, group: int, check: Check = refuse, grid: Grid = "symmetric") -> tuple[Tensor, Tensor]:
    """Quantise [..., N, K] to (q int8 [..., N, K] in -7..7, on grid `source` -8..7, scale bfloat16 [..., N, K/group]).

    Raises ValueError for NaN or infinite input (unless `check` takes that for later) and where K is no multiple of `group`.
    """
    check_groups(weight.shape[-1], group)
    x = split_last(rounded(weight).float(), group)
    absmax = x.abs().amax(dim=-1, keepdim=True)
    check(torch.isfinite(absmax).all())
    scale = _scale(absmax, QMAX)
    q = _codes(x, scale, QMAX)
    if grid == "source":
        least = _largest_error(x, q, scale)
        for other, lowest in ((_scale(absmax, LOWEST), LOWEST), (_next(scale, -1), QMAX), (_next(scale, 1), QMAX)):
            codes = _codes(x, other, lowest)
            error = _largest_error(x, codes, other)
            better = error < least
            q, scale, least = torch.where(better, codes, q), torch.where(better, other, scale), torch.where(better, error, least)
    return q.to(torch.int8).flatten(-2), scale.squeeze(-1)


def _scale(absmax: Tensor, divisor: float) -> Tensor:
    """Return bfloat16 scales. A tensor divisor: CUDA turns division by a Python number into a product with its reciprocal."""
    return torch.div(absmax, torch.full_like(absmax, divisor)).clamp(min=MIN_SCALE).to(torch.bfloat16)


def _next(scale: Tensor, step: int) -> Tensor:
    """Return the BF16 numbers next to positive scales."""
    return (scale.view(torch.int16) + step).view(torch.bfloat16).clamp(min=MIN_SCALE)


def _codes(x: Tensor, scale: Tensor, lowest: float) -> Tensor:
    """Return the codes of groups x [..., n, G] with scales [..., n, 1], float32."""
    return (x * torch.reciprocal(scale.float())).round_().clamp_(-lowest, QMAX)


def _largest_error(x: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
    """Return [..., n, 1]: a largest value depends on no order of summation, so every implementation finds the same."""
    return ((codes * scale.float()).to(torch.bfloat16).float() - x).abs().amax(dim=-1, keepdim=True)


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


class Int4Kernels:
    """See Kernels."""

    def quantize(self, weight: Tensor, fmt: Int4Group, check: Check) -> tuple[Tensor, ...]:
        """See Kernels."""
        if usable(weight):
            ((packed, scale, shape),), seen = self._launched([weight], fmt, False)
            check(seen.finite.all())
            return packed, scale, shape
        q, scale = quantize_int4(weight, fmt.group_size, check, fmt.grid)
        return pack(q), scale, *self.tail(*weight.shape)

    def batch(self, weights: Sequence[Tensor], fmt: Int4Group) -> Quantised | None:
        """See Kernels."""
        return self._launched(weights, fmt, True) if usable(*weights) else None

    def _launched(self, weights: Sequence[Tensor], fmt: Int4Group, stats: bool) -> Quantised:
        from lprl_workload.quant.triton import int4

        for weight in weights:
            check_groups(weight.shape[1], fmt.group_size)
        parts, seen = int4.quantize(weights, fmt.group_size, fmt.grid == "source", stats)
        return [(*part, *self.tail(*weight.shape)) for part, weight in zip(parts, weights, strict=True)], seen

    def dequantize(self, parts: Sequence[Tensor], fmt: Int4Group) -> Tensor:
        """See Kernels; bfloat16. Foreign files too (code -8, other group sizes): the group follows from the scale's shape."""
        packed, scale, shape = parts
        rows, cols = (int(n) for n in shape)
        if packed.shape != (rows, -(-cols // PER_WORD)) or scale.shape[0] != rows or cols % scale.shape[1]:
            raise ValueError(f"packed {list(packed.shape)} and scale {list(scale.shape)} do not fit weight [{rows}, {cols}]")
        if usable(packed, scale) and cols % PER_WORD == 0 and packed.shape[1] % scale.shape[1] == 0:
            from lprl_workload.quant.triton import int4

            return int4.dequantize(packed, scale)
        return dequantize_int4(unpack(packed, cols), scale)

    def fake_quantize(self, weight: Tensor, fmt: Int4Group) -> Tensor:
        """See Kernels; bfloat16."""
        if usable(weight):
            from lprl_workload.quant.triton import int4

            check_groups(weight.shape[-1], fmt.group_size)
            (values,), seen = int4.values([weight], fmt.group_size, fmt.grid == "source")
            refuse(seen.finite.all())
            return values
        return dequantize_int4(*quantize_int4(weight, fmt.group_size, grid=fmt.grid))

    def tail(self, rows: int, cols: int) -> tuple[Tensor, ...]:
        """Return `weight_shape`."""
        return (torch.tensor([rows, cols], dtype=torch.int64),)

    def encoder(self, fmt: Int4Group, cols: int) -> SlabEncoder:
        """See Kernels."""
        return Int4Encoder(fmt, cols)


class Int4Encoder(SlabEncoder):
    """See SlabEncoder."""

    def __init__(self, fmt: Int4Group, cols: int) -> None:
        super().__init__(cols)
        self._group, self._grid = fmt.group_size, fmt.grid

    def encode(self, x: Tensor) -> tuple[memoryview, memoryview]:
        """See SlabEncoder. Raises ValueError for groups that do not divide the columns, too."""
        check_groups(self.cols, self._group)
        rows, cols = x.shape
        count = rows * cols // self._group
        self._groups += count
        if self._native is None:
            q, scale = quantize_int4(x, self._group, grid=self._grid)
            absmax = tiles(x, (1, self._group)).abs().amax(dim=(-3, -1))
            reach = torch.where(split_last(q, self._group).amin(dim=-1) < -QMAX, LOWEST, QMAX)
            clipped = int((absmax.float() > scale.float() * reach).sum())
            self._note(x, dequantize_int4(q, scale), int((absmax == 0).sum()), clipped)
            return raw_bytes(pack(q)), raw_bytes(scale)
        packed_at, scale_at, packed, scales = self._buffers(rows * cols // 2, 2 * count)
        counts = (self._sums, ctypes.byref(self._zeros), ctypes.byref(self._clipped))
        if self._native.lprl_int4(x.data_ptr(), rows, cols, self._group, self._grid == "source", packed_at, scale_at, *counts):
            raise ValueError("NaN or infinite values")
        return packed, scales


KERNELS: Kernels = Int4Kernels()

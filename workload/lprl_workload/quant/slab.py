"""Quantising a weight a slab of rows at a time, with error statistics: what the converter streams through.

Rows of one block or group never cross a slab, so the bytes equal those of `scheme.quantize` on the whole weight; only
`fp8-tensor` needs to see the weight twice (`measure` first).
"""

import ctypes
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import Buffer

from lprl_api.model.formats import Fp8Block, Fp8Channel, Fp8Tensor, Int4Group
from lprl_workload.quant.fp8_block import dequantize_fp8, quantize_fp8, tiles
from lprl_workload.quant.int4_group import QMAX, check_groups, dequantize_int4, pack, quantize_int4
from lprl_workload.quant.native import kernels
from lprl_workload.quant.scheme import block_of, is_pow2, relative_rms

SLAB_BYTES = 1 << 19
"""BF16 bytes of a slab: with its output and the hash's view it stays in a core's L2 cache."""


@dataclass(frozen=True, slots=True)
class ErrorSums:
    """Quantisation error of one weight against its BF16 values."""

    squared_error: float = 0.0
    squared_weight: float = 0.0
    max_abs_error: float = 0.0
    groups: int = 0
    """Blocks, channels or groups that share a scale."""
    zero_groups: int = 0
    """Groups of zeros only."""
    clipped_groups: int = 0
    """Groups whose largest weight lies beyond the largest code (a scale rounded down)."""

    @property
    def relative_rms(self) -> float:
        """Root-mean-square error relative to the weight's root mean square; 0 for a weight of zeros."""
        return relative_rms(self.squared_error, self.squared_weight)


def raw_bytes(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor on the CPU; a view where it is contiguous."""
    array: Buffer = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()  # type: ignore[assignment]
    return memoryview(array)


class SlabEncoder:
    """Quantises one weight of `cols` columns slab by slab; not for use by several threads at once."""

    def __init__(self, fmt: Fp8Block | Fp8Channel | Fp8Tensor | Int4Group, cols: int) -> None:
        self.fmt, self.cols = fmt, cols
        self.unit = fmt.block_size[0] if isinstance(fmt, Fp8Block) else 1
        """Rows that must stay together: every slab but the last is a multiple."""
        self._absmax = torch.zeros((), dtype=torch.bfloat16)
        self._native = kernels()
        self._out: tuple[int, int, memoryview, memoryview] | None = None
        # Squared error, squared weight, largest error; zero groups; clipped groups.
        self._sums, self._zeros, self._clipped = (ctypes.c_double * 3)(), ctypes.c_int64(), ctypes.c_int64()
        self._groups = 0

    @property
    def two_passes(self) -> bool:
        """Whether every slab must go through `measure` before the first goes through `encode`."""
        return isinstance(self.fmt, Fp8Tensor)

    def measure(self, x: Tensor) -> None:
        """Take note of the largest magnitude of slab `x` bfloat16, contiguous."""
        if self._native is None:
            absmax = x.abs().amax()
        else:
            bits = self._native.lprl_absmax(x.data_ptr(), x.numel())
            absmax = torch.tensor(bits, dtype=torch.int16).view(torch.bfloat16)
        self._absmax = torch.maximum(self._absmax, absmax)

    def encode(self, x: Tensor) -> tuple[memoryview, memoryview]:
        """Quantise slab `x` bfloat16 [r, cols], contiguous: bytes of the codes and scales of these rows.

        They are those of the first two tensors `scheme.quantize` returns (for fp8-tensor the one scale, each time), and are
        overwritten by the next call. Raises ValueError for NaN or infinite values and groups that do not divide cols.
        """
        if isinstance(self.fmt, Int4Group):
            check_groups(self.cols, self.fmt.group_size)
            return self._int4(x, self.fmt.group_size)
        return self._fp8(x, block_of(self.fmt, *x.shape), is_pow2(self.fmt))

    def errors(self) -> ErrorSums:
        """Return the error of all slabs so far. Raises ValueError where a code times its scale overflows."""
        error, weight, most = self._sums
        if not math.isfinite(error + weight):
            raise ValueError("values so large that they overflow when dequantised")
        if self.two_passes:
            return ErrorSums(error, weight, most, 1, int(self._absmax == 0), 0)
        return ErrorSums(error, weight, most, self._groups, self._zeros.value, self._clipped.value)

    def _buffers(self, codes: int, scales: int) -> tuple[int, int, memoryview, memoryview]:
        """Return addresses and views of buffers of these many bytes, reused while slabs are of one size."""
        if self._out is None or (len(self._out[2]), len(self._out[3])) != (codes, scales):
            start = codes + -codes % 16
            scratch = bytearray(start + scales)
            address = ctypes.addressof(ctypes.c_char.from_buffer(scratch))
            view = memoryview(scratch)
            self._out = (address, address + start, view[:codes], view[start:])
        return self._out

    def _fp8(self, x: Tensor, block: tuple[int, int], pow2: bool) -> tuple[memoryview, memoryview]:
        rows, cols = x.shape
        count = -(-rows // block[0]) * -(-cols // block[1])
        self._groups += count
        if self._native is None:
            codes, scale = quantize_fp8(x, block, pow2, self._absmax.float() if self.two_passes else None)
            absmax = tiles(x, block).abs().amax(dim=(-3, -1))
            self._note(x, dequantize_fp8(codes, scale, block), int((absmax == 0).sum()), 0)
            return raw_bytes(codes), raw_bytes(scale)
        codes_at, scale_at, codes_view, scales = self._buffers(rows * cols, 4 * count)
        fixed = int(self._absmax.view(torch.int16)) if self.two_passes else -1
        arguments = (x.data_ptr(), rows, cols, *block, pow2, fixed, codes_at, scale_at, self._sums, ctypes.byref(self._zeros))
        if self._native.lprl_fp8(*arguments):
            raise ValueError("NaN or infinite values")
        return codes_view, scales

    def _int4(self, x: Tensor, group: int) -> tuple[memoryview, memoryview]:
        rows, cols = x.shape
        count = rows * cols // group
        self._groups += count
        if self._native is None:
            q, scale = quantize_int4(x, group)
            absmax = tiles(x, (1, group)).abs().amax(dim=(-3, -1))
            clipped = int((absmax.float() > scale.float() * QMAX).sum())
            self._note(x, dequantize_int4(q, scale), int((absmax == 0).sum()), clipped)
            return raw_bytes(pack(q)), raw_bytes(scale)
        packed_at, scale_at, packed, scales = self._buffers(rows * cols // 2, 2 * count)
        counts = (self._sums, ctypes.byref(self._zeros), ctypes.byref(self._clipped))
        if self._native.lprl_int4(x.data_ptr(), rows, cols, group, packed_at, scale_at, *counts):
            raise ValueError("NaN or infinite values")
        return packed, scales

    def _note(self, x: Tensor, value: Tensor, zeros: int, clipped: int) -> None:
        weight = x.double()
        error = value.double() - weight
        self._sums[0] += float(error.square().sum())
        self._sums[1] += float(weight.square().sum())
        self._sums[2] = max(self._sums[2], float(error.abs().amax()))
        self._zeros.value += zeros
        self._clipped.value += clipped

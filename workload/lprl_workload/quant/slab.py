"""Quantising a weight a slab of rows at a time, with error statistics: what the converter streams through.

Rows of one block or group never cross a slab, so the bytes equal those of `scheme.quantize` on the whole weight; only formats with
one scale a weight need to see it twice (`measure` first). Each format's encoder stands with its kernels.
"""

import ctypes
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import Buffer

from lprl_workload.quant.error import relative_rms
from lprl_workload.quant.native import kernels

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
    exact_groups: int | None = None
    """Groups that hold their weights to the last bit; None where nobody looked."""

    @property
    def relative_rms(self) -> float:
        """Root-mean-square error relative to the weight's root mean square; 0 for a weight of zeros."""
        return relative_rms(self.squared_error, self.squared_weight)


def raw_bytes(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor on the CPU; a view where it is contiguous."""
    array: Buffer = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()  # type: ignore[assignment]
    return memoryview(array)


class SlabEncoder(ABC):
    """Quantises one weight of `cols` columns slab by slab; not for use by several threads at once."""

    def __init__(self, cols: int, unit: int = 1, two_passes: bool = False) -> None:
        self.cols, self.unit, self.two_passes = cols, unit, two_passes
        """`unit`: rows that must stay together, every slab but the last is a multiple; `two_passes`: whether every slab must go through
        `measure` before the first goes through `encode`."""
        self._absmax = torch.zeros((), dtype=torch.bfloat16)
        self._native = kernels()
        self._out: tuple[int, int, memoryview, memoryview] | None = None
        # Squared error, squared weight, largest error; zero groups; clipped groups.
        self._sums, self._zeros, self._clipped = (ctypes.c_double * 3)(), ctypes.c_int64(), ctypes.c_int64()
        self._groups = 0

    def measure(self, x: Tensor) -> None:
        """Take note of the largest magnitude of slab `x` bfloat16, contiguous."""
        if self._native is None:
            absmax = x.abs().amax()
        else:
            bits = self._native.lprl_absmax(x.data_ptr(), x.numel())
            absmax = torch.tensor(bits, dtype=torch.int16).view(torch.bfloat16)
        self._absmax = torch.maximum(self._absmax, absmax)

    @abstractmethod
    def encode(self, x: Tensor) -> tuple[memoryview, memoryview]:
        """Quantise slab `x` bfloat16 [r, cols], contiguous: bytes of the codes and scales of these rows.

        They are those of the first two tensors `scheme.quantize` returns, and are overwritten by the next call. Raises ValueError
        for NaN or infinite values.
        """

    def errors(self) -> ErrorSums:
        """Return the error of all slabs so far. Raises ValueError where a code times its scale overflows."""
        error, weight, most = self._sums
        if not math.isfinite(error + weight):
            raise ValueError("values so large that they overflow when dequantised")
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

    def _note(self, x: Tensor, value: Tensor, zeros: int, clipped: int) -> None:
        weight = x.double()
        error = value.double() - weight
        self._sums[0] += float(error.square().sum())
        self._sums[1] += float(weight.square().sum())
        self._sums[2] = max(self._sums[2], float(error.abs().amax()))
        self._zeros.value += zeros
        self._clipped.value += clipped

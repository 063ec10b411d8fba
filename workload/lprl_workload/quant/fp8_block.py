"""FP8 E4M3 with one float32 scale per rectangle of the weight, computed as TransformerEngine computes it.

For a rectangle with largest magnitude `absmax`, in fp32 throughout:

    qscale    = 448 / absmax          (1 where absmax is 0, the largest finite fp32 where the quotient overflows)
    code      = e4m3fn(weight * qscale)
    scale_inv = 1 / qscale            (what a checkpoint stores: dequantised = code * scale_inv)

It multiplies by 448 / absmax instead of dividing by absmax / 448 because those are the bytes TE trains with; the two differ
in about 0.01 % of the codes and 42 % of the scales (last bit). With `pow2` qscale is rounded down to a power of two (ue8m0), as TE does.

Channel and tensor scaling are the same formula with rectangles of [1, K] and [N, K]. Tails of rows or columns form smaller
rectangles, which equals zero padding and cropping, since a zero never raises an absmax.

Legend: N,K weight rows,cols; n,k = rectangles along them; bn,bk = rectangle size; a leading `...` is any batch (experts).
"""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from lprl_api.model.formats.fp8 import Fp8
from lprl_workload.quant.batch import Quantised
from lprl_workload.quant.kernels import Kernels
from lprl_workload.quant.slab import ErrorSums, SlabEncoder, raw_bytes
from lprl_workload.quant.source import Check, refuse, rounded, split_last, tiles, untile
from lprl_workload.quant.triton.available import usable
from lprl_workload.quant.triton.work import manner

E4M3_MAX = 448.0
FP32_MAX = torch.finfo(torch.float32).max


def qscale_of(absmax: Tensor, pow2: bool = False) -> Tensor:
    """Return the multiplier 448 / absmax, float32 like `absmax`; see the module's formula.

    A true division of two tensors: `448 / tensor` in PyTorch is a reciprocal and a product, which rounds twice.
    """
    qscale = torch.div(torch.full_like(absmax, E4M3_MAX), absmax)
    qscale = torch.where(absmax == 0, torch.ones_like(absmax), qscale).clamp(max=FP32_MAX)
    if pow2:
        # Clearing the mantissa rounds down to a power of two; qscale is at least 448 / FP32_MAX, a normal number.
        qscale = (qscale.view(torch.int32) & 0x7F800000).view(torch.float32)
    return qscale


def quantize_fp8(
    weight: Tensor, block: tuple[int, int], pow2: bool = False, absmax: Tensor | None = None, check: Check = refuse
) -> tuple[Tensor, Tensor]:
    """Quantise [..., N, K] to (codes float8_e4m3fn [..., N, K], scale_inv float32 [..., n, k]).

    `absmax` (float32, one element) replaces each rectangle's own, for rows of a weight that shares one scale with rows not given.
    Raises ValueError for NaN or infinite input (callers know the tensor's name), unless `check` takes that for later.
    """
    rows, cols = weight.shape[-2:]
    if absmax is None and _on_gpu([weight], [block]):
        from lprl_workload.quant.triton import fp8

        (parts,), seen = fp8.quantize([weight], [block], pow2)
        check(seen.finite.all())
        return parts
    x = tiles(rounded(weight).float(), block)
    own = x.abs().amax(dim=(-3, -1), keepdim=True)
    absmax = own if absmax is None else absmax.expand_as(own)
    check(torch.isfinite(absmax).all())
    qscale = qscale_of(absmax, pow2)
    # absmax * (448 / absmax) can exceed 448 by an ulp, which E4M3 rounds back to 448: no clamp is needed.
    codes = untile((x * qscale).to(torch.float8_e4m3fn), rows, cols)
    return codes.contiguous(), torch.reciprocal(qscale).squeeze(-1).squeeze(-2)


def _on_gpu(weights: Sequence[Tensor], blocks: Sequence[tuple[int, int]]) -> bool:
    """Return whether the Triton kernels do these weights [..., N, K] with scales of these rectangles."""
    return usable(*weights) and all(manner(block, (w.shape[-2], w.shape[-1])) for w, block in zip(weights, blocks, strict=True))


def dequantize_fp8(codes: Tensor, scale_inv: Tensor, block: tuple[int, int]) -> Tensor:
    """Return codes * scale_inv, float32 [..., N, K]; scale_inv [..., n, k] of any float dtype is read as float32."""
    rows, cols = codes.shape[-2:]
    spread = scale_inv.float().unsqueeze(-1).unsqueeze(-3)
    return untile(tiles(codes.float(), block) * spread, rows, cols).contiguous()


def activation_fake_quantize(x: Tensor, group: int = 128) -> Tensor:
    """Return x [..., K] as an FP8 GEMM sees it: dynamic scales of 1 x `group` along the last dimension, zero-padded tail.

    Same formula as weights, on fp32 values; result in x's dtype, gradient identity (straight through).
    """
    value = x.detach().float()
    cols = value.shape[-1]
    grouped = split_last(pad(value, (0, -cols % group)), group)
    qscale = qscale_of(grouped.abs().amax(dim=-1, keepdim=True))
    spread = (grouped * qscale).to(torch.float8_e4m3fn).float() * torch.reciprocal(qscale)
    seen: Tensor = spread.flatten(-2)[..., :cols].to(x.dtype)
    return x + (seen - x).detach() if x.requires_grad else seen


class Fp8Kernels:
    """See Kernels: of the formats by block, by channel and by tensor."""

    def quantize(self, weight: Tensor, fmt: Fp8, check: Check) -> tuple[Tensor, ...]:
        """See Kernels."""
        rows, cols = weight.shape
        codes, scale_inv = quantize_fp8(weight, fmt.tile(rows, cols), fmt.powers_of_two, check=check)
        return codes, scale_inv.reshape(fmt.scales(rows, cols))

    def batch(self, weights: Sequence[Tensor], fmt: Fp8) -> Quantised | None:
        """See Kernels."""
        blocks = [fmt.tile(*weight.shape) for weight in weights]
        if not _on_gpu(weights, blocks):
            return None
        from lprl_workload.quant.triton import fp8

        parts, seen = fp8.quantize(weights, blocks, fmt.powers_of_two, stats=True)
        return [(codes, scale.reshape(fmt.scales(*codes.shape))) for codes, scale in parts], seen

    def dequantize(self, parts: Sequence[Tensor], fmt: Fp8) -> Tensor:
        """See Kernels; float32."""
        codes, scale = parts
        high, wide = block = fmt.tile(*codes.shape)
        wanted = (-(-codes.shape[0] // high), -(-codes.shape[1] // wide))
        if scale.numel() != wanted[0] * wanted[1]:
            raise ValueError(f"scale of shape {list(scale.shape)} for weight {list(codes.shape)}; needs {list(wanted)}")
        return dequantize_fp8(codes, scale.reshape(wanted), block)

    def fake_quantize(self, weight: Tensor, fmt: Fp8) -> Tensor:
        """See Kernels; float32."""
        block = fmt.tile(*weight.shape[-2:])
        if _on_gpu([weight], [block]):
            from lprl_workload.quant.triton import fp8

            (values,), seen = fp8.values([weight], [block], fmt.powers_of_two)
            refuse(seen.finite.all())
            return values
        return dequantize_fp8(*quantize_fp8(weight, block, fmt.powers_of_two), block)

    def tail(self, rows: int, cols: int) -> tuple[Tensor, ...]:
        """See Kernels."""
        return ()

    def encoder(self, fmt: Fp8, cols: int) -> SlabEncoder:
        """See Kernels."""
        return Fp8Encoder(fmt, cols)


class Fp8Encoder(SlabEncoder):
    """See SlabEncoder."""

    def __init__(self, fmt: Fp8, cols: int) -> None:
        super().__init__(cols, unit=fmt.unit[0], two_passes=fmt.whole)
        self._fmt = fmt

    def encode(self, x: Tensor) -> tuple[memoryview, memoryview]:
        """See SlabEncoder; a scale for the whole weight is returned each time."""
        rows, cols = x.shape
        block = self._fmt.tile(rows, cols)
        count = -(-rows // block[0]) * -(-cols // block[1])
        self._groups += count
        if self._native is None:
            codes, scale = quantize_fp8(x, block, self._fmt.powers_of_two, self._absmax.float() if self.two_passes else None)
            absmax = tiles(x, block).abs().amax(dim=(-3, -1))
            self._note(x, dequantize_fp8(codes, scale, block), int((absmax == 0).sum()), 0)
            return raw_bytes(codes), raw_bytes(scale)
        codes_at, scale_at, codes_view, scales = self._buffers(rows * cols, 4 * count)
        fixed = int(self._absmax.view(torch.int16)) if self.two_passes else -1
        settings = (*block, self._fmt.powers_of_two, fixed, codes_at, scale_at)
        if self._native.lprl_fp8(x.data_ptr(), rows, cols, *settings, self._sums, ctypes.byref(self._zeros)):
            raise ValueError("NaN or infinite values")
        return codes_view, scales

    def errors(self) -> ErrorSums:
        """See SlabEncoder; one scale is one group."""
        found = super().errors()
        if not self.two_passes:
            return found
        return ErrorSums(found.squared_error, found.squared_weight, found.max_abs_error, 1, int(self._absmax == 0), 0)


KERNELS: Kernels = Fp8Kernels()

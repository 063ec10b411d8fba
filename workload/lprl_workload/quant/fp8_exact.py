"""Block FP8 of weights that come out of MXFP4: to the last bit wherever a block can hold them.

E2M1 values are multiples of half their group's scale 2^e, and at most 6 of it. In a block whose scale is a power of two, E4M3 has all such
values that are multiples of 2^-9 of that scale and at most 448 of it. The largest scale that keeps a block's absmax at or below 448 is
64 times 2^-e where that is 6 or 4, 128 times for 3 and 2, ...: groups whose exponents differ by up to 14 lie on one grid. A block that
spans more is quantised as any BF16 weight is (fp8_block.py): every scale rounds its smallest values.
"""

import torch
from torch import Tensor

from lprl_api.model.formats.fp8 import Fp8
from lprl_workload.quant.fp8_block import Fp8Encoder, dequantize_fp8, quantize_fp8
from lprl_workload.quant.slab import ErrorSums, raw_bytes
from lprl_workload.quant.source import tiles, untile


def quantize_exactly(weight: Tensor, block: tuple[int, int], pow2: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Quantise [N, K] bfloat16 to (codes float8_e4m3fn [N, K], scale_inv float32 [n, k], whether a block is exact, bool [n, k]).

    Blocks that a power-of-two scale holds exactly get it; the others are those of `quantize_fp8`. Raises ValueError for NaN and infinity.
    """
    codes, scale = quantize_fp8(weight, block, pow2=True)
    exact = (tiles(dequantize_fp8(codes, scale, block), block) == tiles(weight.float(), block)).all(dim=-1).all(dim=-2)
    if pow2 or bool(exact.all()):
        return codes, scale, exact
    other, other_scale = quantize_fp8(weight, block)
    chosen = torch.where(exact[..., None, :, None], tiles(codes.view(torch.uint8), block), tiles(other.view(torch.uint8), block))
    rows, cols = weight.shape
    return untile(chosen, rows, cols).contiguous().view(torch.float8_e4m3fn), torch.where(exact, scale, other_scale), exact


class ExactFp8Encoder(Fp8Encoder):
    """See SlabEncoder; of formats with several scales a weight."""

    def __init__(self, fmt: Fp8, cols: int) -> None:
        super().__init__(fmt, cols)
        self._exact = 0

    def encode(self, x: Tensor) -> tuple[memoryview, memoryview]:
        """See SlabEncoder."""
        block = self._fmt.tile(*x.shape)
        codes, scale, exact = quantize_exactly(x, block, self._fmt.powers_of_two)
        self._groups += exact.numel()
        self._exact += int(exact.sum())
        zeros = int((tiles(x, block).abs().amax(dim=(-3, -1)) == 0).sum())
        self._note(x, dequantize_fp8(codes, scale, block), zeros, 0)
        return raw_bytes(codes), raw_bytes(scale)

    def errors(self) -> ErrorSums:
        """See SlabEncoder; with the blocks that are exact."""
        found = super().errors()
        return ErrorSums(
            found.squared_error, found.squared_weight, found.max_abs_error, found.groups, found.zero_groups, 0, exact_groups=self._exact
        )

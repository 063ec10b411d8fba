"""Named weights <-> served tensors, for every WeightFormat: the interface of the quantizer.

Served tensors of `X.weight` [N, K]:

    bf16         X.weight bfloat16
    fp8-block    X.weight float8_e4m3fn [N, K], X.weight_scale_inv float32 [ceil(N/bn), ceil(K/bk)]
    fp8-channel  X.weight float8_e4m3fn [N, K], X.weight_scale float32 [N, 1]
    fp8-tensor   X.weight float8_e4m3fn [N, K], X.weight_scale float32 [1]
    int4-group   X.weight_packed int32 [N, K/8], X.weight_scale bfloat16 [N, K/G], X.weight_shape int64 [2]

Which weights are quantised at all is `select.py`'s decision; these functions do what they are told.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from lprl_api.errors import UserError
from lprl_api.model.formats import Bf16, Fp8Block, Fp8Channel, Fp8Tensor, Int4Group, WeightFormat
from lprl_workload.quant.fp8_block import dequantize_fp8, quantize_fp8
from lprl_workload.quant.int4_group import dequantize_int4, pack, quantize_int4, unpack
from lprl_workload.quant.source import Check, refuse, rounded

Fp8 = Fp8Block | Fp8Channel | Fp8Tensor
SUFFIX = ".weight"


def module_of(name: str) -> str:
    """Return X of `X.weight`. Raises UserError for a name that is no weight's."""
    if not name.endswith(SUFFIX):
        raise UserError(
            f"tensor {name}: only tensors named MODULE.weight can be quantised", "leave it out of the tensors that are quantised"
        )
    return name.removesuffix(SUFFIX)


def served_names(name: str, fmt: WeightFormat) -> tuple[str, ...]:
    """Return the names weight `name` is served under in `fmt`, in the order `quantize` returns them."""
    module = module_of(name)
    match fmt:
        case Bf16():
            return (name,)
        case Fp8Block():
            return (name, f"{module}.weight_scale_inv")
        case Fp8Channel() | Fp8Tensor():
            return (name, f"{module}.weight_scale")
        case Int4Group():
            return (f"{module}.weight_packed", f"{module}.weight_scale", f"{module}.weight_shape")


def block_of(fmt: Fp8, rows: int, cols: int) -> tuple[int, int]:
    """Return the rectangle of an [rows, cols] weight that shares one scale."""
    match fmt:
        case Fp8Block():
            return fmt.block_size
        case Fp8Channel():
            return (1, cols)
        case Fp8Tensor():
            return (rows, cols)


def is_pow2(fmt: Fp8) -> bool:
    """Return whether scales are powers of two."""
    return isinstance(fmt, Fp8Block) and fmt.scale_format == "ue8m0"


def quantize(name: str, weight: Tensor, fmt: WeightFormat, check: Check = refuse) -> dict[str, Tensor]:
    """Return the served tensors of `weight` [N, K] (rounded to bfloat16 first) under their checkpoint names.

    `check` is given whether all values are finite, as a tensor on the weight's device; the default waits for it and refuses.
    Raises UserError naming the tensor for NaN or infinite input, a wrong dtype or rank, and channels no group fits.
    """
    names = served_names(name, fmt)
    if weight.ndim != 2 or not weight.numel():
        raise UserError(
            f"tensor {name}: shape {list(weight.shape)}; only non-empty matrices can be quantised",
            "copy or download the model folder again",
        )
    try:
        return dict(zip(names, _served(weight, fmt, check), strict=True))
    except ValueError as error:
        raise UserError(f"tensor {name}: {error}", "exclude it (excludeModules), or choose another format") from error


def _served(weight: Tensor, fmt: WeightFormat, check: Check) -> tuple[Tensor, ...]:
    rows, cols = weight.shape
    match fmt:
        case Bf16():
            return (rounded(weight),)
        case Fp8Block() | Fp8Channel() | Fp8Tensor():
            codes, scale_inv = quantize_fp8(weight, block_of(fmt, rows, cols), is_pow2(fmt), check=check)
            return codes, scale_inv.reshape(1) if isinstance(fmt, Fp8Tensor) else scale_inv
        case Int4Group():
            q, scale = quantize_int4(weight, fmt.group_size, check)
            return pack(q), scale, torch.tensor([rows, cols], dtype=torch.int64)


def dequantize(parts: Mapping[str, Tensor], module: str, fmt: WeightFormat) -> Tensor:
    """Return the values an engine computes with from the served tensors of `module`, [N, K].

    float32 for FP8 (code * scale), bfloat16 for INT4 (bf16(q * scale)) and BF16. Foreign INT4 (code -8, other group sizes)
    is accepted: the group follows from the scale's shape. Raises UserError naming a part that is missing or misshapen.
    """
    tensors = [_part(parts, name) for name in served_names(module + SUFFIX, fmt)]
    match fmt:
        case Bf16():
            return tensors[0]
        case Fp8Block() | Fp8Channel() | Fp8Tensor():
            codes, scale = tensors
            rows, cols = codes.shape
            block = block_of(fmt, rows, cols)
            wanted = (-(-rows // block[0]), -(-cols // block[1]))
            if scale.numel() != wanted[0] * wanted[1]:
                raise UserError(f"tensor {module}: scale of shape {list(scale.shape)} for weight {list(codes.shape)}; needs {list(wanted)}")
            return dequantize_fp8(codes, scale.reshape(wanted), block)
        case Int4Group():
            packed, scale, shape = tensors
            rows, cols = (int(n) for n in shape)
            if packed.shape != (rows, -(-cols // 8)) or scale.shape[0] != rows or cols % scale.shape[1]:
                raise UserError(
                    f"tensor {module}: packed {list(packed.shape)} and scale {list(scale.shape)} do not fit weight [{rows}, {cols}]"
                )
            return dequantize_int4(unpack(packed, cols), scale)


def _part(parts: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in parts:
        raise UserError(f"tensor {name}: missing, found {sorted(parts)}", "copy or download the model folder again")
    return parts[name]


def fake_quantize(weight: Tensor, fmt: WeightFormat) -> Tensor:
    """Return the value an engine computes with, bit-equal to dequantize(quantize(weight)), without gradient.

    weight [..., N, K]: each [N, K] matrix of a batch (experts) on its own. float32 for FP8, bfloat16 for INT4 and BF16.
    A fused gate_up_proj must be split into gate and up first: a block must not span both.
    """
    match fmt:
        case Bf16():
            return rounded(weight)
        case Fp8Block() | Fp8Channel() | Fp8Tensor():
            rows, cols = weight.shape[-2:]
            block = block_of(fmt, rows, cols)
            return dequantize_fp8(*quantize_fp8(weight, block, is_pow2(fmt)), block)
        case Int4Group():
            return dequantize_int4(*quantize_int4(weight, fmt.group_size))


class _StraightThrough(torch.autograd.Function):
    """Identity gradient through any value of the same shape."""

    @staticmethod
    def forward(ctx: object, weight: Tensor, value: Tensor) -> Tensor:
        return value.to(weight.dtype)

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def straight_through(weight: Tensor, fmt: WeightFormat) -> Tensor:
    """Return fake_quantize(weight) in weight's dtype, with the identity as its gradient.

    Bit-equal to fake_quantize for float32 weights; for BF16 weights the FP8 product is rounded to BF16.
    """
    out: Tensor = _StraightThrough.apply(weight, fake_quantize(weight, fmt))  # type: ignore[no-untyped-call]
    return out


def quantization_error(weight: Tensor, fmt: WeightFormat) -> tuple[float, float]:
    """Return (sum of squared errors, sum of squared weights) against the BF16 weight, float64 sums.

    Sums of several tensors add up; `relative_rms` of them is the relative RMS error.
    """
    reference = rounded(weight).double()
    error = fake_quantize(weight, fmt).double() - reference
    return float(error.square().sum()), float(reference.square().sum())


def relative_rms(squared_error: float, squared_weight: float) -> float:
    """Return sqrt(sum of squared errors / sum of squared weights); 0 for weights of zeros, or none."""
    return math.sqrt(squared_error / squared_weight) if squared_weight else 0.0

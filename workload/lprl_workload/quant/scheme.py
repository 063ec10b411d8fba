"""Named weights <-> served tensors, for every WeightFormat: the interface of the quantizer.

What a weight is stored as is the format's own (`Format.parts`, lprl_api/model/formats/), the arithmetic its kernels' (quant/kernels.py).
Which weights are quantised at all is `select.py`'s decision; these functions do what they are told.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lprl_api.errors import UserError
from lprl_api.model.formats import WeightFormat
from lprl_workload.process.movement import here
from lprl_workload.quant.batch import Seen
from lprl_workload.quant.kernels import kernels_of
from lprl_workload.quant.source import Check, refuse, rounded

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
    return fmt.names(module_of(name))


def quantize(name: str, weight: Tensor, fmt: WeightFormat, check: Check = refuse) -> dict[str, Tensor]:
    """Return the served tensors of `weight` [N, K] (rounded to bfloat16 first) under their checkpoint names.

    `check` is given whether all values are finite, as a tensor on the weight's device; the default waits for it and refuses.
    Raises UserError naming the tensor for NaN or infinite input, a wrong dtype or rank, and channels no group fits.
    """
    names = served_names(name, fmt)
    _check_shape(name, weight)
    try:
        return dict(zip(names, kernels_of(fmt).quantize(weight, fmt, check), strict=True))
    except ValueError as error:
        raise UserError(f"tensor {name}: {error}", "exclude it (excludeModules), or choose another format") from error


def _check_shape(name: str, weight: Tensor) -> None:
    if weight.ndim != 2 or not weight.numel():
        raise UserError(
            f"tensor {name}: shape {list(weight.shape)}; only non-empty matrices can be quantised",
            "copy or download the model folder again",
        )


def quantize_batch(items: Sequence[tuple[str, Tensor]], fmt: WeightFormat) -> tuple[list[dict[str, Tensor]], Seen]:
    """Return what `quantize` returns of several named weights [N, K] of one device, and whether they were finite and what the error is.

    On a GPU with Triton it is one launch for as many weights as there are (of like alignment), and nothing waits for the device. Raises
    what `quantize` raises, but for values that are not finite.
    """
    for name, weight in items:
        _check_shape(name, weight)
    try:
        found = kernels_of(fmt).batch([weight for _, weight in items], fmt)
    except ValueError:
        found = None  # one by one, the weight that does not fit is named
    if found is None:
        return _one_by_one(items, fmt)
    parts, seen = found
    return [dict(zip(served_names(name, fmt), part, strict=True)) for (name, _), part in zip(items, parts, strict=True)], seen


def _one_by_one(items: Sequence[tuple[str, Tensor]], fmt: WeightFormat) -> tuple[list[dict[str, Tensor]], Seen]:
    found: list[dict[str, Tensor]] = []
    finite: list[Tensor] = []
    errors, weights = [], []
    for name, weight in items:
        here.tick()
        found.append(quantize(name, weight, fmt, finite.append))
        exact = weight.to(torch.float32)
        errors.append((dequantize(found[-1], module_of(name), fmt).to(torch.float32) - exact).square().sum(dtype=torch.float64))
        weights.append(exact.square().sum(dtype=torch.float64))
    return found, Seen(torch.stack(finite), torch.stack(errors), torch.stack(weights))


def dequantize(parts: Mapping[str, Tensor], module: str, fmt: WeightFormat) -> Tensor:
    """Return the values an engine computes with from the served tensors of `module`, [N, K].

    float32 for FP8 (code * scale), bfloat16 for INT4 (bf16(q * scale)) and BF16. Foreign INT4 (code -8, other group sizes)
    is accepted: the group follows from the scale's shape. Raises UserError naming a part that is missing or misshapen.
    """
    tensors = [_part(parts, name) for name in served_names(module + SUFFIX, fmt)]
    try:
        return kernels_of(fmt).dequantize(tensors, fmt)
    except ValueError as error:
        raise UserError(
            f"tensor {module}: {error}", "restore the quantization_config and the files the model was published with"
        ) from error


def _part(parts: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in parts:
        raise UserError(f"tensor {name}: missing, found {sorted(parts)}", "copy or download the model folder again")
    return parts[name]


def fake_quantize(weight: Tensor, fmt: WeightFormat) -> Tensor:
    """Return the value an engine computes with, bit-equal to dequantize(quantize(weight)), without gradient.

    weight [..., N, K]: each [N, K] matrix of a batch (experts) on its own. float32 for FP8, bfloat16 for INT4 and BF16.
    A fused gate_up_proj must be split into gate and up first: a block must not span both.
    """
    return kernels_of(fmt).fake_quantize(weight, fmt)


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

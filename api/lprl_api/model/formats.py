"""Weight formats a checkpoint can be in: the value conversion, fake quantisation and weight sync agree on."""

from typing import Annotated, Literal

from pydantic import Field

from lprl_api.base import Contract, PositiveInt
from lprl_api.spec.precision import Precision, Rollout, Scope, Training

Activations = Literal["dynamic", "none"]
"""What an engine does with the inputs of FP8 weights: quantises them at every product, or leaves them in high precision."""


class Bf16(Contract):
    """BFloat16 everywhere, no quantization_config."""

    kind: Literal["bf16"] = "bf16"


class Fp8Block(Contract):
    """E4M3 codes `X.weight`, one scale per block in `X.weight_scale_inv` (float32)."""

    kind: Literal["fp8-block"] = "fp8-block"
    block_size: tuple[PositiveInt, PositiveInt] = (128, 128)
    scale_format: Literal["float32", "ue8m0"] = "float32"
    activations: Activations = "dynamic"
    exclude_modules: tuple[str, ...] = ()


class Fp8Channel(Contract):
    """E4M3 codes, one scale per output channel in `X.weight_scale` [N, 1] (compressed-tensors float-quantized)."""

    kind: Literal["fp8-channel"] = "fp8-channel"
    activations: Activations = "dynamic"
    exclude_modules: tuple[str, ...] = ()


class Fp8Tensor(Contract):
    """E4M3 codes, one scale in `X.weight_scale` [1]."""

    kind: Literal["fp8-tensor"] = "fp8-tensor"
    activations: Activations = "dynamic"
    exclude_modules: tuple[str, ...] = ()


class Int4Group(Contract):
    """Symmetric INT4, one scale per `group_size` input channels (compressed-tensors pack-quantized)."""

    kind: Literal["int4-group"] = "int4-group"
    group_size: Literal[32, 64, 128] = 128
    scope: Scope = Scope.ROUTED_EXPERTS
    exclude_modules: tuple[str, ...] = ()


WeightFormat = Annotated[Bf16 | Fp8Block | Fp8Channel | Fp8Tensor | Int4Group, Field(discriminator="kind")]


def _fp8(precision: Precision, activations: Activations) -> Fp8Block | Fp8Channel | Fp8Tensor:
    exclude, fp8 = precision.exclude_modules, precision.fp8
    match fp8.strategy:
        case "block":
            return Fp8Block(block_size=fp8.block_size, scale_format=fp8.scale_format, activations=activations, exclude_modules=exclude)
        case "channel":
            return Fp8Channel(activations=activations, exclude_modules=exclude)
        case "tensor":
            return Fp8Tensor(activations=activations, exclude_modules=exclude)


def described(fmt: WeightFormat) -> str:
    """Return the weights and the activations an engine computes with, for people: `fp8-block, FP8 activations`."""
    activations = getattr(fmt, "activations", "none")
    return fmt.kind if isinstance(fmt, Bf16) else f"{fmt.kind}, {'FP8' if activations == 'dynamic' else 'BF16'} activations"


def int4_scope(precision: Precision, is_moe: bool) -> Scope:
    """Return the linear layers INT4 applies to."""
    return precision.int4.scope or (Scope.ROUTED_EXPERTS if is_moe else Scope.ALL_LINEAR)


def _int4(precision: Precision, is_moe: bool) -> Int4Group:
    scope = int4_scope(precision, is_moe)
    return Int4Group(group_size=precision.int4.group_size, scope=scope, exclude_modules=precision.exclude_modules)


def rollout_format(precision: Precision, is_moe: bool) -> WeightFormat:
    """Return the format the engine serves."""
    match precision.rollout:
        case Rollout.BF16:
            return Bf16()
        case Rollout.FP8:
            return _fp8(precision, precision.fp8.activations)
        case Rollout.INT4:
            return _int4(precision, is_moe)


def export_format(precision: Precision, name: str, is_moe: bool) -> WeightFormat:
    """Return the format of an entry of checkpoint.exportFormats: the job's own settings, whatever its rollout serves."""
    return rollout_format(precision.model_copy(update={"rollout": Rollout(name)}), is_moe)


def training_format(precision: Precision, is_moe: bool) -> WeightFormat:
    """Return the format the trainer's forward pass sees (fake quantisation, or emulated FP8)."""
    match precision.training:
        case Training.BF16:
            return Bf16()
        case Training.FP8:
            return _fp8(precision, "dynamic")
        case Training.FP8_QAT:
            return _fp8(precision, "none")
        case Training.INT4_QAT:
            return _int4(precision, is_moe)

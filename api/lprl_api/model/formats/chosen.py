"""Which weight format a job's precision asks for: served, exported, trained."""

from lprl_api.model.formats import Activations, Bf16, Fp8Block, Fp8Channel, Fp8Tensor, Int4Group, WeightFormat
from lprl_api.spec.precision import Precision, Rollout, Scope, Training


def _fp8(precision: Precision, activations: Activations) -> Fp8Block | Fp8Channel | Fp8Tensor:
    exclude, fp8 = precision.exclude_modules, precision.fp8
    match fp8.strategy:
        case "block":
            return Fp8Block(block_size=fp8.block_size, scale_format=fp8.scale_format, activations=activations, exclude_modules=exclude)
        case "channel":
            return Fp8Channel(activations=activations, exclude_modules=exclude)
        case "tensor":
            return Fp8Tensor(activations=activations, exclude_modules=exclude)


def int4_scope(precision: Precision, is_moe: bool) -> Scope:
    """Return the linear layers INT4 applies to."""
    return precision.int4.scope or (Scope.ROUTED_EXPERTS if is_moe else Scope.ALL_LINEAR)


def _int4(precision: Precision, is_moe: bool) -> Int4Group:
    scope = int4_scope(precision, is_moe)
    int4 = precision.int4
    return Int4Group(group_size=int4.group_size, scope=scope, exclude_modules=precision.exclude_modules, grid=int4.grid)


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

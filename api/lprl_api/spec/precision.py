"""Precisions a job can train and roll out in."""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from lprl_api.base import Contract, PositiveInt


class Training(StrEnum):
    """Arithmetic of the trainer's linear layers."""

    BF16 = "bf16"
    FP8 = "fp8"
    """Products of FP8 weights and FP8 activations (TransformerEngine; emulated by the torch trainer)."""
    FP8_QAT = "fp8-qat"
    """Weights fake-quantised to the checkpoint's FP8 grid, products in BF16, gradients straight through."""
    INT4_QAT = "int4-qat"
    """Weights fake-quantised to the checkpoint's INT4 grid, products in BF16, gradients straight through."""


class Rollout(StrEnum):
    """Format of the weights the rollout engine serves."""

    BF16 = "bf16"
    FP8 = "fp8"
    INT4 = "int4"


class Scope(StrEnum):
    """Which linear layers INT4 applies to."""

    ROUTED_EXPERTS = "routed-experts"
    ALL_LINEAR = "all-linear"


class Int4(Contract):
    """Symmetric weight-only INT4: one scale per `groupSize` input channels (compressed-tensors `pack-quantized`)."""

    group_size: Literal[32, 64, 128] = Field(128, description="Input channels that share one scale. Kimi-K2-Thinking uses 32. Default 128.")
    scope: Scope | None = Field(
        None,
        description="Linear layers to quantise: routed-experts or all-linear. "
        "Default: routed-experts for a mixture-of-experts model, all-linear for a dense one.",
    )
    grid: Literal["symmetric", "source"] = Field(
        "symmetric",
        description="Codes of a group: symmetric has -7 to 7 and a scale of max/7; source also -8 to 7 with max/8, whichever is closer in "
        "that group: it keeps the values of an INT4 source, whatever tool wrote it. Default symmetric.",
    )


class Fp8(Contract):
    """FP8 E4M3 weights, and what the rollout engine does with the activations they are multiplied with."""

    strategy: Literal["block", "channel", "tensor"] = Field(
        "block", description="Weights that share one scale: a block, an output channel, or the whole tensor. Default block."
    )
    block_size: tuple[PositiveInt, PositiveInt] = Field(
        (128, 128), description="Rows and columns of a block; only [128, 128] is served by the engines. Default [128, 128]."
    )
    scale_format: Literal["float32", "ue8m0"] = Field(
        "float32", description="float32 scales, or powers of two (ue8m0, needed on Blackwell). Default float32."
    )
    activations: Literal["dynamic", "none"] = Field(
        "dynamic",
        description="Activations in the rollout engine: dynamic quantises them to FP8 at every product (W8A8), none leaves them in "
        "BF16 (W8A16: weight-only, the smallest mismatch; no FP8 units needed). Default dynamic.",
    )
    param_gather: bool = Field(
        False,
        description="Keep trainer parameters in FP8 and gather them so (Megatron fp8-param-gather); "
        "excludes optimizer.cpuOffload. Default false.",
    )


class Precision(Contract):
    """Precision of training and of rollout, and how low-precision weights are made."""

    training: Training = Field(Training.BF16, description="bf16, fp8, fp8-qat or int4-qat. Default bf16.")
    rollout: Rollout = Field(Rollout.BF16, description="bf16, fp8 or int4. Default bf16.")
    int4: Int4 = Field(Int4(), description="INT4 settings, used when rollout is int4.")
    fp8: Fp8 = Field(Fp8(), description="FP8 settings, used when training or rollout is fp8 or fp8-qat.")
    exclude_modules: tuple[str, ...] = Field(
        (),
        description="Glob patterns of module names (Hugging Face names without .weight) left in high precision, "
        "in addition to embeddings, output head, norms, routers and vision towers. Default none.",
    )

    @property
    def label(self) -> str:
        """`training/rollout`, as the PRECISION column prints it, with `weight-only` where FP8 is served without rounded activations."""
        weight_only = self.rollout is Rollout.FP8 and self.fp8.activations == "none"
        return f"{self.training}/{self.rollout}{' weight-only' if weight_only else ''}"

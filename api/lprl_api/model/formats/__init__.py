"""Weight formats a checkpoint can be in: the value conversion, fake quantisation and weight sync agree on. All of them are named here."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from lprl_api.model.formats.base import Activations, Format
from lprl_api.model.formats.bf16 import Bf16
from lprl_api.model.formats.fp8_block import CompressedFp8Block, Fp8Block
from lprl_api.model.formats.fp8_channel import Fp8Channel
from lprl_api.model.formats.fp8_tensor import Fp8Tensor
from lprl_api.model.formats.int4_group import Int4Group
from lprl_api.model.formats.mxfp4 import CompressedMxfp4

__all__ = [
    "FORMATS",
    "READ",
    "Activations",
    "Bf16",
    "Format",
    "Fp8Block",
    "Fp8Channel",
    "Fp8Tensor",
    "Int4Group",
    "LowPrecision",
    "WeightFormat",
]

LowPrecision = Literal["fp8-block", "fp8-channel", "fp8-tensor", "int4-group"]
"""Kinds of what is quantised."""
WeightFormat = Annotated[Bf16 | Fp8Block | Fp8Channel | Fp8Tensor | Int4Group, Field(discriminator="kind")]
FORMATS: dict[str, type[Format]] = {cls.model_fields["kind"].default: cls for cls in get_args(get_args(WeightFormat)[0])}
"""Kind -> format, in the order in which they are offered."""
READ: tuple[type[Format], ...] = (*FORMATS.values(), CompressedFp8Block, CompressedMxfp4)
"""What a checkpoint can be in: those, and what others write and nobody is offered."""


def described(fmt: WeightFormat) -> str:
    """Return the weights and the activations an engine computes with, for people: `fp8-block, FP8 activations`."""
    return fmt.kind if isinstance(fmt, Bf16) else f"{fmt.kind}, {'BF16' if fmt.activation_group is None else 'FP8'} activations"

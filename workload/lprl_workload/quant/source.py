"""The quantizer's input: the BF16 weight a checkpoint stores."""

from collections.abc import Callable

import torch
from torch import Tensor

Check = Callable[[Tensor], None]
"""Takes whether all values are finite, a boolean scalar on the weight's device."""


def refuse(finite: Tensor) -> None:
    """Wait for the answer and raise ValueError unless it is yes."""
    if not bool(finite):
        raise ValueError("NaN or infinite values")


def rounded(weight: Tensor) -> Tensor:
    """Return `weight` as bfloat16 (rounded to nearest even when it is not), detached.

    Raises ValueError for integer and FP8 dtypes, which are codes and not weights.
    """
    if not weight.is_floating_point() or weight.element_size() < 2:
        raise ValueError(f"dtype {str(weight.dtype).removeprefix('torch.')}; needs bfloat16, float16 or float32")
    return weight.detach().to(torch.bfloat16)


def split_last(x: Tensor, size: int) -> Tensor:
    """Return [..., n * size] as [..., n, size] (a view where strides allow)."""
    return x.reshape(*x.shape[:-1], -1, size)

"""The quantizer's input: the BF16 weight a checkpoint stores, and its rectangles."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

Check = Callable[[Tensor], None]
"""Takes whether all values are finite, a boolean scalar on the weight's device."""


def refuse(finite: Tensor) -> None:
    """Wait for the answer and raise ValueError unless it is yes."""
    if not bool(finite):
        raise ValueError("NaN or infinite values")


def weight_like(weight: Tensor) -> Tensor:
    """Return `weight` detached. Raises ValueError for integer and FP8 dtypes, which are codes and not weights."""
    if not weight.is_floating_point() or weight.element_size() < 2:
        raise ValueError(f"dtype {str(weight.dtype).removeprefix('torch.')}; needs bfloat16, float16 or float32")
    return weight.detach()


def rounded(weight: Tensor) -> Tensor:
    """Return `weight` as bfloat16 (rounded to nearest even when it is not), detached; raises what `weight_like` raises."""
    return weight_like(weight).to(torch.bfloat16)


def split_last(x: Tensor, size: int) -> Tensor:
    """Return [..., n * size] as [..., n, size] (a view where strides allow)."""
    return x.reshape(*x.shape[:-1], -1, size)


def tiles(x: Tensor, block: tuple[int, int]) -> Tensor:
    """Return [..., N, K] as zero-padded rectangles [..., n, bn, k, bk] (a view where nothing is padded)."""
    (bn, bk), (rows, cols) = block, x.shape[-2:]
    if rows % bn or cols % bk:
        x = pad(x, (0, -cols % bk, 0, -rows % bn))
    return x.reshape(*x.shape[:-2], x.shape[-2] // bn, bn, x.shape[-1] // bk, bk)


def untile(x: Tensor, rows: int, cols: int) -> Tensor:
    """Undo `tiles`: [..., n, bn, k, bk] -> [..., rows, cols], the padding cropped."""
    return x.flatten(-2).flatten(-3, -2)[..., :rows, :cols]

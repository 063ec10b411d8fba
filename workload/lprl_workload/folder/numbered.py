"""Numbered elements: a tensor of them is read back as the strided view of one parameter, or is none."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import prod

import torch
from torch import Tensor

PARAMETER = 40
"""Bits of an element's number that say where in its parameter it lies; those above say which parameter."""


@dataclass(frozen=True, slots=True)
class View:
    """One checkpoint tensor inside its parameter."""

    parameter: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    """The parameter's axis of each of the tensor's dimensions."""
    index: tuple[int | slice, ...]
    """One entry for each axis of the parameter."""

    @property
    def whole(self) -> bool:
        """Whether it is all of the parameter, as it lies."""
        return self.axes == tuple(range(len(self.index))) and all(isinstance(i, slice) and i.start == 0 and i.step == 1 for i in self.index)


def numbered(number: int, shape: tuple[int, ...]) -> Tensor:
    """Return the stand-in of parameter `number`, int64: every element has a number of its own."""
    return torch.arange(prod(shape), dtype=torch.int64).reshape(shape) + (number << PARAMETER)


def parameter_of(tensor: Tensor) -> int:
    """Return the number of the parameter that the first element of a tensor is of."""
    return int(tensor.reshape(-1)[0]) >> PARAMETER


def located(tensor: Tensor, name: str, full: tuple[int, ...], origin: Tensor) -> View | str:
    """Return where numbered elements lie in parameter `name`, or why they are no view of it.

    `full`: the parameter's shape; `origin`: its stand-in (`numbered`), of which each axis is a part of the parameter's.
    """
    start = int(origin.reshape(-1)[0])
    first = int(tensor.reshape(-1)[0]) - start
    strides = tuple(int(tensor.select(d, 1).reshape(-1)[0]) - start - first if n > 1 else 0 for d, n in enumerate(tensor.shape))
    last = first + sum(stride * (size - 1) for stride, size in zip(strides, tensor.shape, strict=True))
    if min(strides, default=0) < 0 or last >= origin.numel():
        return f"it is put together from {name} and others, or in another order"
    if not torch.equal(tensor, origin.reshape(-1).as_strided(tensor.shape, strides, first)):
        return f"its elements are not those of {name} in their order"
    found = _place(full, tuple(origin.shape), tuple(tensor.shape), first, strides)
    return f"{found} {name}" if isinstance(found, str) else View(name, *found)


@cache
def _place(
    full: tuple[int, ...], small: tuple[int, ...], shape: tuple[int, ...], first: int, strides: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int | slice, ...]] | str:
    """Return (shape, axes, index) of a view with these strides in the parameter, or why there is none; layers are alike."""
    placed = _axes(small, shape, strides)
    if isinstance(placed, str):
        return placed
    axes, steps = placed
    index = _index(full, small, first, {axis: shape[d] for d, axis in enumerate(axes)}, steps)
    if isinstance(index, str):
        return index
    sizes = {axis: len(range(*i.indices(full[axis]))) for axis, i in enumerate(index) if isinstance(i, slice)}
    return tuple(sizes[axis] for axis in axes), axes, index


def _axes(small: tuple[int, ...], shape: tuple[int, ...], strides: Sequence[int]) -> tuple[tuple[int, ...], list[int]] | str:
    """Return (the parameter's axis of each dimension, the step along each axis)."""
    own = [prod(small[axis + 1 :]) for axis in range(len(small))]
    axes, steps = [-1] * len(shape), [1] * len(small)
    for d, (size, stride) in enumerate(zip(shape, strides, strict=True)):
        if size > 1:
            fits = (a for a in range(len(small)) if stride and stride % own[a] == 0 and stride // own[a] * (size - 1) < small[a])
            axis = next(fits, None)
            if axis is None or axis in axes:
                return "a dimension of it runs across those of"
            axes[d], steps[axis] = axis, stride // own[axis]
    free = [axis for axis in range(len(small)) if axis not in axes]
    if len(shape) < len(small):
        free.sort(key=lambda axis: (small[axis] != 1, axis))  # an expert's axis is the one that is gone
    for d, axis in enumerate(axes):
        if axis < 0:
            if not free:
                return "it has more dimensions than"
            axes[d] = free.pop(0)
    return tuple(axes), steps


def _index(
    full: tuple[int, ...], small: tuple[int, ...], first: int, counts: dict[int, int], steps: list[int]
) -> tuple[int | slice, ...] | str:
    """Return what of each axis of the full parameter a view takes; `counts`: elements of the stand-in along the axes it has."""
    found: list[int | slice] = []
    for axis, (whole, part) in enumerate(zip(full, small, strict=True)):
        start, factor = first // prod(small[axis + 1 :]) % part, whole // part
        if axis not in counts:
            if factor != 1:
                return f"it takes one of a stand-in's {part} of {whole} in"
            found.append(start)
        elif steps[axis] == 1:
            found.append(slice(start * factor, (start + counts[axis]) * factor, 1))
        elif start < steps[axis] and counts[axis] * steps[axis] == part:
            found.append(slice(start, whole, steps[axis]))
        else:
            return "its elements are some, in steps, of"
    return tuple(found)

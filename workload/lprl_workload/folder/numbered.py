"""Numbered elements: a tensor of them is read back as the strided view of one parameter, or is none."""

from collections.abc import Sequence
from dataclasses import dataclass
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


def located(tensor: Tensor, name: str, full: tuple[int, ...], small: tuple[int, ...]) -> View | str:
    """Return where numbered elements lie in parameter `name`, or why they are no view of it.

    `full`: the parameter's shape; `small`: its stand-in's, of which each axis is a part of the parameter's.
    """
    inside = tensor - (parameter_of(tensor) << PARAMETER)
    first = int(inside.reshape(-1)[0])
    if bool((inside < 0).any()) or bool((inside >= prod(small)).any()):
        return f"it is put together from {name} and others"
    strides = [int(inside.select(d, 1).reshape(-1)[0]) - first if size > 1 else 0 for d, size in enumerate(inside.shape)]
    wanted = torch.full_like(inside, first)
    for d, (size, stride) in enumerate(zip(inside.shape, strides, strict=True)):
        wanted += (torch.arange(size) * stride).view(-1, *[1] * (inside.ndim - d - 1))
    if not torch.equal(inside, wanted):
        return f"its elements are those of {name} in another order"
    placed = _axes(name, small, tuple(inside.shape), strides)
    if isinstance(placed, str):
        return placed
    axes, steps = placed
    index = _index(name, full, small, first, {axis: inside.shape[d] for d, axis in enumerate(axes)}, steps)
    if isinstance(index, str):
        return index
    sizes = {axis: len(range(*i.indices(full[axis]))) for axis, i in enumerate(index) if isinstance(i, slice)}
    return View(name, tuple(sizes[axis] for axis in axes), axes, index)


def _axes(name: str, small: tuple[int, ...], shape: tuple[int, ...], strides: Sequence[int]) -> tuple[tuple[int, ...], list[int]] | str:
    """Return (the parameter's axis of each dimension, the step along each axis)."""
    own = [prod(small[axis + 1 :]) for axis in range(len(small))]
    axes, steps = [-1] * len(shape), [1] * len(small)
    for d, (size, stride) in enumerate(zip(shape, strides, strict=True)):
        if size > 1:
            fits = (a for a in range(len(small)) if stride and stride % own[a] == 0 and stride // own[a] * (size - 1) < small[a])
            axis = next(fits, None)
            if axis is None or axis in axes:
                return f"a dimension of it runs across those of {name}"
            axes[d], steps[axis] = axis, stride // own[axis]
    free = [axis for axis in range(len(small)) if axis not in axes]
    if len(shape) < len(small):
        free.sort(key=lambda axis: (small[axis] != 1, axis))  # an expert's axis is the one that is gone
    for d, axis in enumerate(axes):
        if axis < 0:
            if not free:
                return f"it has dimensions that {name} has not"
            axes[d] = free.pop(0)
    return tuple(axes), steps


def _index(
    name: str, full: tuple[int, ...], small: tuple[int, ...], first: int, counts: dict[int, int], steps: list[int]
) -> tuple[int | slice, ...] | str:
    """Return what of each axis of the full parameter a view takes; `counts`: elements of the stand-in along the axes it has."""
    found: list[int | slice] = []
    for axis, (whole, part) in enumerate(zip(full, small, strict=True)):
        start, factor = first // prod(small[axis + 1 :]) % part, whole // part
        if axis not in counts:
            if factor != 1:
                return f"it takes one of a stand-in's {part} of {whole} in {name}"
            found.append(start)
        elif steps[axis] == 1:
            found.append(slice(start * factor, (start + counts[axis]) * factor, 1))
        elif start < steps[axis] and counts[axis] * steps[axis] == part:
            found.append(slice(start, whole, steps[axis]))
        else:
            return f"its elements are some of {name}'s in steps"
    return tuple(found)

"""Which program of a launch takes which part of which tensor: plain numbers, without Triton.

Weights are laid out in classes, a launch each: a kernel is compiled for a class, and one odd weight must not slow the others.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import prod
from typing import Literal, NamedTuple

import numpy as np

FIELDS = 8
"""int64 numbers a tensor in the table: common_kernels.py lists them."""
ALIGNMENT = 16
"""Bytes of a vector load, and elements a row must be a multiple of for one."""
MOST_IN_TILE = 1 << 15
"""Weights of a rectangle that one program holds in registers."""
MOST_SHAPES = 4
"""Of the weights of a class that are launched shape by shape."""
Tile = tuple[int, int]
How = Literal["tiles", "rows", "whole", "groups"]
Table = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
Owners = np.ndarray[tuple[int, ...], np.dtype[np.int32]]


class Matrix(NamedTuple):
    """One weight [rows, cols] by the addresses of what is read and written."""

    source: int
    out: int
    scales: int
    rows: int
    cols: int
    kind: int = 0
    """What the source is stored in: SOURCE of common_kernels.py."""

    @property
    def aligned(self) -> bool:
        """Whether rows and addresses allow vector loads and stores."""
        return (self.source | self.out | self.cols) % ALIGNMENT == 0


class Class(NamedTuple):
    """What one launch is compiled for."""

    how: How
    unit: Tile
    """Rows and columns a program takes."""
    kind: int
    even: bool
    """Whether every program has whole units only."""
    aligned: bool


def manner(tile: Tile, shape: Tile) -> How | None:
    """Return which kernel does weights [rows, cols] = `shape` of which `tile` shares a scale; None where none does."""
    high, wide = tile
    if high == 1 and wide >= shape[1]:
        return "rows"
    if high & (high - 1) == 0 and wide & (wide - 1) == 0 and 16 <= high * wide <= MOST_IN_TILE:
        return "tiles"
    return "whole" if high >= shape[0] and wide >= shape[1] else None


def classes(matrices: Sequence[Matrix], hows: Sequence[tuple[How, Tile]]) -> dict[Class, list[int]]:
    """Divide weights, each with its kernel and unit, by what their kernel is compiled for; by their numbers."""
    found: dict[Class, list[int]] = {}
    for number, (matrix, (how, unit)) in enumerate(zip(matrices, hows, strict=True)):
        even = matrix.rows % unit[0] == 0 and matrix.cols % unit[1] == 0
        found.setdefault(Class(how, unit, matrix.kind, even, matrix.aligned), []).append(number)
    return found


def by_shape(matrices: Sequence[Matrix], numbers: Sequence[int]) -> list[list[int]]:
    """Divide a class by shape, a launch each: that is faster than looking up each program's weight, while there are few."""
    found: dict[tuple[int, int], list[int]] = {}
    for number in numbers:
        found.setdefault((matrices[number].rows, matrices[number].cols), []).append(number)
    return list(found.values()) if len(found) <= MOST_SHAPES else [list(numbers)]


def steps(matrices: Sequence[Matrix]) -> tuple[int, int, int] | None:
    """Return the steps from one matrix's addresses (source, out, scales) to the next's where they are all the same, else None."""
    found = {(b.source - a.source, b.out - a.out, b.scales - a.scales) for a, b in pairwise(matrices)}
    return next(iter(found), (0, 0, 0)) if len(found) <= 1 else None


def tiles(rows: int, cols: int, unit: Tile) -> int:
    """Return how many rectangles of `unit` cover a matrix."""
    return -(-rows // unit[0]) * -(-cols // unit[1])


def table(rows: Sequence[tuple[int, int, int, int, int, int]], programs: Sequence[int]) -> tuple[Table, Owners]:
    """Return (table int64 [tensors, 8], owner int32 [programs in all]).

    `rows`: source, out, scales, rows, columns, first position of each tensor; `programs`: how many take it.
    """
    counts = np.asarray(programs, dtype=np.int64)
    given = np.asarray(rows, dtype=np.int64).reshape(-1, 6)
    found = np.zeros((len(counts), FIELDS), dtype=np.int64)
    found[:, :5], found[:, 7] = given[:, :5], given[:, 5]
    found[1:, 5] = np.cumsum(counts)[:-1]
    found[:, 6] = counts
    return found, np.repeat(np.arange(len(counts), dtype=np.int32), counts)


def count_runs(shape: Sequence[int], whole: Sequence[int]) -> int:
    """Return how many runs a piece has."""
    count, inner = 1, True
    for size, of in zip(reversed(shape), reversed(whole), strict=True):
        count = count if inner else count * size
        inner = inner and size == of
    return count


def runs(shape: Sequence[int], whole: Sequence[int], offset: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Yield (first element, elements, first position in the whole) of the runs of a contiguous piece that lie end to end in the whole.

    The piece is [offset, offset + shape) of a tensor of shape `whole`.
    """
    if tuple(shape) == tuple(whole):
        yield 0, prod(shape), 0
        return
    inner, length = len(shape), 1
    while inner > 0:  # dimensions that are whole, from the last on, are one run with the first that is not
        inner -= 1
        length *= shape[inner]
        if shape[inner] != whole[inner]:
            break
    strides = [1] * len(whole)
    for dimension in range(len(whole) - 2, -1, -1):
        strides[dimension] = strides[dimension + 1] * whole[dimension + 1]
    base = sum(begin * stride for begin, stride in zip(offset, strides, strict=True))
    for number, place in enumerate(np.ndindex(*shape[:inner])):
        yield number * length, length, base + sum(at * stride for at, stride in zip(place, strides, strict=False))

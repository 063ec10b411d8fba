"""Parts: rectangles of checkpoint tensors and where they lie in a rank's parameters. Pure: numbers and names only."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

Dimensions = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """`shape` elements of checkpoint tensor `name` from `offset` on, and where they lie in a parameter.

    Its rows lie in runs of `run` rows; a run begins `step` rows after the one before it, the first at row `row`. Columns are the
    parameter's own. A part of one run may begin anywhere; of several, the parameter's rows are a multiple of `step`, and row < step.
    """

    name: str
    offset: Dimensions
    shape: Dimensions
    row: int
    run: int
    step: int

    @property
    def runs(self) -> int:
        """How many there are."""
        return self.shape[0] // self.run


@dataclass(frozen=True, slots=True)
class Tensor:
    """A checkpoint tensor, whole."""

    name: str
    shape: Dimensions


@dataclass(frozen=True, slots=True)
class Cutting:
    """A rank's share of one parameter."""

    shape: Dimensions
    parts: tuple[Part, ...]
    padding: int = 0
    """Last rows that nothing of a checkpoint lies in."""


class UncutError(ValueError):
    """A tensor that cannot be cut into so many parts."""


def share(size: int, ranks: int, name: str, what: str = "rows") -> int:
    """Return the equal part of `size` each of `ranks` gets; raises UncutError."""
    each, left = divmod(size, ranks)
    if left:
        raise UncutError(f"{name}: {size} {what} cannot be cut into {ranks} equal parts")
    return each


def whole(sources: Sequence[Tensor]) -> Cutting:
    """All of a tensor."""
    (source,) = sources
    return Cutting(source.shape, (_rectangle(source, 0, source.shape[0], 0),))


def rows(sources: Sequence[Tensor], rank: int, ranks: int) -> Cutting:
    """A rank's rows of each source, one below the other."""
    each = [share(source.shape[0], ranks, source.name) for source in sources]
    starts = accumulate(each, initial=0)
    parts = tuple(_rectangle(source, rank * n, n, at) for source, n, at in zip(sources, each, starts, strict=False))
    return Cutting((sum(each), *sources[0].shape[1:]), parts)


def sections(sources: Sequence[Tensor], rank: int, ranks: int, values: int) -> Cutting:
    """A rank's rows of query and key (equally many) and of the `values` rows of value, which lie one below the other in one tensor."""
    (source,) = sources
    if ranks == 1:
        return whole(sources)
    keys, odd = divmod(source.shape[0] - values, 2)
    if odd:
        raise UncutError(f"{source.name}: {source.shape[0]} rows are no query and key beside {values} rows of value")
    sizes = (keys, keys, values)
    each = [share(size, ranks, source.name) for size in sizes]
    places = zip(accumulate(sizes, initial=0), each, accumulate(each, initial=0), strict=False)
    parts = tuple(_rectangle(source, first + rank * n, n, at) for first, n, at in places)
    return Cutting((sum(each), *source.shape[1:]), parts)


def columns(sources: Sequence[Tensor], rank: int, ranks: int) -> Cutting:
    """A rank's columns; of a vector, all."""
    (source,) = sources
    if len(source.shape) == 1:
        return whole(sources)
    height, width = source.shape
    each = share(width, ranks, source.name, "columns")
    return Cutting((height, each), (Part(source.name, (0, rank * each), (height, each), 0, height, height),))


def vocab(sources: Sequence[Tensor], rank: int, ranks: int, multiple: int) -> Cutting:
    """A rank's rows of an embedding, whose rows are padded to a multiple of `multiple` x `ranks`."""
    (source,) = sources
    each = -(-source.shape[0] // (multiple * ranks)) * multiple
    first, last = rank * each, min(source.shape[0], (rank + 1) * each)
    held = max(0, last - first)
    parts = (_rectangle(source, first, held, 0),) if held else ()
    return Cutting((each, *source.shape[1:]), parts, each - held)


def groups(sources: Sequence[Tensor], rank: int, ranks: int, count: int) -> Cutting:
    """A rank's rows of query, key and value that lie by query group, `count` groups in all."""
    runs = [share(source.shape[0], count, source.name) for source in sources]
    each = share(sum(runs) * count, ranks, sources[0].name, "rows with those of key and value")
    starts = list(accumulate(runs, initial=0))
    width, parts = sources[0].shape[1:], list[Part]()
    if each % starts[-1] == 0:
        held = each // starts[-1]
        for source, run, at in zip(sources, runs, starts, strict=False):
            part = _rectangle(source, rank * held * run, held * run, at)
            parts.append(Part(part.name, part.offset, part.shape, at, run, starts[-1]))
        return Cutting((each, *width), tuple(parts))
    if starts[-1] % each:
        raise UncutError(f"{sources[0].name}: {count} query groups are neither a multiple nor a divisor of {ranks} parts")
    group, first = divmod(rank * each, starts[-1])
    for source, run, at in zip(sources, runs, starts, strict=False):
        low, high = max(first, at), min(first + each, at + run)
        if low < high:
            parts.append(_rectangle(source, group * run + low - at, high - low, low - first))
    return Cutting((each, *width), tuple(parts))


def _rectangle(source: Tensor, first: int, count: int, row: int) -> Part:
    """Rows [first, first + count) of a tensor, all its columns, at row `row` of the parameter."""
    rest = source.shape[1:]
    return Part(source.name, (first, *(0,) * len(rest)), (count, *rest), row, count, count)

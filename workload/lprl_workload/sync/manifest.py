"""What a trainer holds, rank by rank: WeightManifest says who owns which part of every checkpoint tensor, WeightSource hands it out.

Both ends of a push compute the manifest and everything that follows from it (routes, sizes, what an engine must have got) by
themselves, from the model's shape and the trainer's layout alone. Nothing about it travels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Protocol

import torch
from torch import Tensor

from lprl_api.model.formats import Bf16, WeightFormat
from lprl_workload.quant.select import Chosen
from lprl_workload.quant.specs import Spec, served_specs, spec_bytes


@dataclass(frozen=True, slots=True)
class Piece:
    """The part of a tensor one rank owns: `shape` elements from `offset` on."""

    rank: int
    offset: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def index(self) -> tuple[slice, ...]:
        """Return where it lies in the whole tensor."""
        return tuple(slice(first, first + size) for first, size in zip(self.offset, self.shape, strict=True))


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of the checkpoint, under its Hugging Face name."""

    name: str
    dtype: str
    """As `shards` yields it: BF16; F32 for router correction biases; those of codes and scales where a trainer holds served tensors."""
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]
    """Tile the tensor: every element is in one piece, of one rank."""

    @property
    def nbytes(self) -> int:
        """Return the bytes of the whole tensor."""
        return spec_bytes(self.dtype, self.shape)

    def piece_bytes(self, piece: Piece) -> int:
        """Return the bytes of one piece."""
        return spec_bytes(self.dtype, piece.shape)


@dataclass(frozen=True, slots=True)
class WeightManifest:
    """Every tensor of a checkpoint and where it lies."""

    ranks: int
    entries: tuple[Entry, ...]

    def faults(self) -> list[str]:
        """Return what is wrong with it, in words: names that occur twice, pieces that do not tile, ranks that do not exist."""
        found: list[str] = []
        seen: set[str] = set()
        for entry in self.entries:
            if entry.name in seen:
                found.append(f"{entry.name}: listed twice")
            seen.add(entry.name)
            if any(not 0 <= piece.rank < self.ranks for piece in entry.pieces):
                found.append(f"{entry.name}: a piece of a rank that does not exist")
            if sum(prod(piece.shape) for piece in entry.pieces) != prod(entry.shape) or _overlap(entry.pieces):
                found.append(f"{entry.name}: the pieces do not tile {list(entry.shape)}")
        return found


def _overlap(pieces: Sequence[Piece]) -> bool:
    boxes = [piece.index for piece in pieces]
    return any(
        all(max(a.start, b.start) < min(a.stop, b.stop) for a, b in zip(one, two, strict=True))
        for number, one in enumerate(boxes)
        for two in boxes[number + 1 :]
    )


@dataclass(frozen=True, slots=True)
class Shard:
    """One piece with its values."""

    name: str
    offset: tuple[int, ...]
    tensor: Tensor
    """On the device that holds it."""


class WeightSource(Protocol):
    """The weights as one trainer rank holds them."""

    @property
    def device(self) -> torch.device:
        """Return the device whole tensors are put together on."""

    def manifest(self) -> WeightManifest:
        """Return who owns what. Pure, and the same on every rank."""

    def shards(self, names: Sequence[str]) -> Iterator[Shard]:
        """Yield the pieces of `names` this rank owns, in the rank's own order.

        No collective: a consumer may stop anywhere, and the other ranks do not notice.
        """


@dataclass(frozen=True, slots=True)
class ServedAs:
    """What a manifest's tensors are served as."""

    fmt: WeightFormat
    selection: Chosen
    _known: dict[str, tuple[Spec, ...]] = field(default_factory=dict, compare=False, repr=False)

    def quantises(self, entry: Entry) -> bool:
        """Return whether the sender quantises a tensor; what a trainer holds as codes already goes as it is."""
        return entry.dtype == "BF16" and not isinstance(self.fmt, Bf16) and self.selection.selects(entry.name, entry.shape)

    def specs(self, entry: Entry) -> tuple[Spec, ...]:
        """Return names, dtypes and shapes of what an engine gets for a tensor."""
        if entry.name not in self._known:
            whole = ((entry.name, entry.dtype, entry.shape),)
            self._known[entry.name] = served_specs(entry.name, entry.shape, self.fmt) if self.quantises(entry) else whole
        return self._known[entry.name]

"""What became of the tensors of an update: which of them a model's own loader used, where their bytes lie, and what nobody wrote.

Model classes of an engine skip names they do not know, some without a word, and fuse what checkpoints keep apart. So the tensors handed
to `load_weights` are of a class that notes every copy made out of them, or out of what was made of them (slices, casts, concatenations),
in whatever thread. At the end the bytes are looked for where they were put.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lprl_workload.sync.checksum import checksum

_COPY, _ASSIGN, _ITEM = torch.Tensor.copy_, torch.Tensor.__setitem__, torch.Tensor.item


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a parameter that something was copied to."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> "Region":
        """Return where a tensor lies."""
        return cls(tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()))


@dataclass(frozen=True, slots=True)
class Landed:
    """What was copied to a region."""

    where: Tensor
    sum: Tensor
    """Checksum of the values as the region's dtype holds them."""
    origins: frozenset[str]


@dataclass(slots=True)
class Landing:
    """The copies of one update into one model."""

    used: set[str] = field(default_factory=set)
    landed: dict[Region, Landed] = field(default_factory=dict)

    def note(self, where: Tensor, value: Tensor, origins: frozenset[str]) -> None:
        """Note a copy that was made."""
        self.used |= origins
        held = value.to(device=where.device, dtype=where.dtype).expand_as(where)
        self.landed[Region.of(where)] = Landed(where, checksum(held), origins)

    def moved(self) -> list[str]:
        """Return the names of tensors whose bytes are not where they were put any more, sorted."""
        found = list(self.landed.values())
        if not found:
            return []
        now = torch.stack([checksum(each.where) for each in found])
        then = torch.stack([each.sum for each in found])
        wrong = (now != then).nonzero().flatten().tolist()
        return sorted({name for number in wrong for name in found[number].origins})

    def unwritten(self, parameters: Iterable[tuple[str, Tensor, int]]) -> list[str]:
        """Return the names of parameters of which fewer elements were written than the number given with them, sorted."""
        written: dict[int, int] = {}
        for region, each in self.landed.items():
            storage = each.where.untyped_storage().data_ptr()
            written[storage] = written.get(storage, 0) + _size(region.shape)
        return sorted(name for name, p, needed in parameters if written.get(p.untyped_storage().data_ptr(), 0) < needed)


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for each in shape:
        size *= each
    return size


class Sent(torch.Tensor):
    """A tensor that was sent, or something made of such."""

    origins: frozenset[str]
    landing: Landing

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do what is asked with plain tensors, note copies, and mark what comes of it."""
        given = list(_sent(args))
        with torch._C.DisableTorchFunctionSubclass():
            found = func(*args, **(kwargs or {}))
            if not given:
                return found
            origins = frozenset[str]().union(*(each.origins for each in given))
            if func is _COPY and isinstance(args[1], Sent):
                given[0].landing.note(args[0], plain(args[1]), origins)
                return found
            if func is _ASSIGN and isinstance(args[2], Sent):
                given[0].landing.note(args[0][args[1]], plain(args[2]), origins)
                return found
            if func is _ITEM:
                given[0].landing.used.update(origins)
            return _marked(found, given[0].landing, origins)


def sent(tensor: Tensor, name: str, landing: Landing) -> Tensor:
    """Return a view of a tensor whose way is noted in `landing`."""
    return _mark(tensor, landing, frozenset((name,)))


def plain(tensor: Tensor) -> Tensor:
    """Return the same without a mark."""
    with torch._C.DisableTorchFunctionSubclass():
        return tensor.as_subclass(torch.Tensor)


def _mark(tensor: Tensor, landing: Landing, origins: frozenset[str]) -> Tensor:
    found = tensor.as_subclass(Sent)
    found.landing, found.origins = landing, origins
    return found


def _marked(found: Any, landing: Landing, origins: frozenset[str]) -> Any:
    if isinstance(found, Tensor) and not isinstance(found, nn.Parameter):
        return _mark(found, landing, origins)
    if isinstance(found, tuple | list) and any(isinstance(each, Tensor) for each in found):
        return type(found)(_marked(each, landing, origins) for each in found)
    return found


def _sent(args: Any) -> Iterator[Sent]:
    for each in args:
        if isinstance(each, Sent):
            yield each
        elif isinstance(each, tuple | list):
            yield from _sent(each)

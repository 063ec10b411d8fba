"""Who sends what to whom: pure, computed alike on every rank before a push begins.

A push goes in rounds. In each round every sender assembles one parcel (whole tensors, of pieces that it and other ranks own), makes the
served tensors of it, and sends each engine rank its part.

Invariants of `route` (tests/unit/lprl_workload/sync/test_routes.py asserts each):

1. Every tensor of the manifest is in exactly one parcel, and every engine rank gets of every served tensor what its layout takes, once.
2. A parcel holds at most `bucket_bytes` (of weights as held, and of served tensors), or a single tensor.
3. Only `senders` send; a tensor goes to a sender that owns a part of it where there is one, so such pieces do not travel.
4. Senders that may choose share the load: what they send differs by at most one largest tensor where any sender may take any tensor.
5. Parcels of one sender keep the manifest's order.
6. Equal arguments give equal routes: no clock, no hashing order, no state.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import zip_longest

from lprl_workload.quant.specs import Spec, spec_bytes
from lprl_workload.sync.manifest import Entry, ServedAs, WeightManifest

ALIGNMENT = 16
"""Offsets in a bucket are multiples of this many bytes, so that every dtype can be viewed in place."""


@dataclass(frozen=True, slots=True)
class Target:
    """One rank of one engine."""

    engine: int
    rank: int = 0


@dataclass(frozen=True, slots=True)
class EngineLayout:
    """What an engine can take: how many ranks it has, where they are, and which part of each tensor each of them wants."""

    engine: int = 0
    ranks: int = 1
    cuts: tuple[tuple[str, int], ...] = ()
    """(glob of served names, dimension): rank r takes the r-th of `ranks` equal parts along it. First match; others are taken whole."""
    experts: int | None = None
    """Routed experts, dealt out over the ranks in order; None: every rank takes all of them."""
    device: str = "cpu"
    node: str = ""
    ways: frozenset[str] = frozenset({"local", "disk", "broadcast"})
    """Transports it can be reached by."""
    checks: frozenset[str] = frozenset({"counts", "checksum"})

    def part(self, rank: int, name: str, shape: tuple[int, ...]) -> tuple[slice, ...] | None:
        """Return which part of served tensor `name` a rank takes: () all of it, None nothing.

        Raises ValueError where the tensor cannot be cut equally.
        """
        if self.experts is not None and (expert := _expert(name)) is not None and expert * self.ranks // self.experts != rank:
            return None
        dimension = next((d for pattern, d in self.cuts if fnmatchcase(name, pattern)), None)
        if dimension is None or self.ranks == 1:
            return ()
        size, left = divmod(shape[dimension], self.ranks)
        if left:
            raise ValueError(f"{name}: dimension {dimension} of {list(shape)} cannot be cut into {self.ranks}")
        return (*(slice(None),) * dimension, slice(rank * size, (rank + 1) * size))

    @property
    def alike(self) -> bool:
        """Return whether all its ranks take the same."""
        return self.ranks == 1 or (not self.cuts and self.experts is None)


def _expert(name: str) -> int | None:
    _, found, rest = name.partition(".experts.")
    number = rest.partition(".")[0]
    return int(number) if found and number.isdigit() else None


@dataclass(frozen=True, slots=True)
class Audience:
    """Engine ranks that take the same bytes."""

    targets: tuple[Target, ...]
    layout: EngineLayout
    rank: int

    def part(self, spec: Spec) -> tuple[slice, ...] | None:
        """See EngineLayout.part."""
        return self.layout.part(self.rank, spec[0], spec[2])


@dataclass(frozen=True, slots=True)
class Parcel:
    """What one sender sends in one round."""

    sender: int
    entries: tuple[int, ...]
    """Positions in the manifest."""


@dataclass(frozen=True, slots=True)
class Routes:
    """A whole push."""

    manifest: WeightManifest
    served_as: ServedAs
    rounds: tuple[tuple[Parcel, ...], ...]
    """At most one parcel a sender."""
    audiences: tuple[Audience, ...]
    senders: tuple[int, ...]

    def entries(self, parcel: Parcel) -> list[Entry]:
        """Return the tensors of a parcel."""
        return [self.manifest.entries[n] for n in parcel.entries]

    def of(self, rank: int) -> list[tuple[Parcel, tuple[Target, ...]]]:
        """Return what a rank sends, in order, and to whom."""
        targets = tuple(target for audience in self.audiences for target in audience.targets)
        return [(parcel, targets) for parcels in self.rounds for parcel in parcels if parcel.sender == rank]


def audiences(layouts: Sequence[EngineLayout]) -> tuple[Audience, ...]:
    """Put engine ranks that take the same together."""
    found: dict[tuple[object, ...], list[Target]] = {}
    first: dict[tuple[object, ...], tuple[EngineLayout, int]] = {}
    for layout in layouts:
        for rank in range(layout.ranks):
            key = (layout.checks,) if layout.alike else (layout.checks, layout.ranks, layout.cuts, layout.experts, rank)
            found.setdefault(key, []).append(Target(layout.engine, rank))
            first.setdefault(key, (layout, rank))
    return tuple(Audience(tuple(targets), *first[key]) for key, targets in found.items())


def route(
    manifest: WeightManifest, layouts: Sequence[EngineLayout], bucket_bytes: int, served_as: ServedAs, senders: Sequence[int] | None = None
) -> Routes:
    """Return the routes of a push to engines of `layouts`; see the module for what holds of them.

    Args:
        manifest: who owns what.
        layouts: of the engines to be brought up to date.
        bucket_bytes: bound of one parcel, bytes.
        served_as: what is quantised to what.
        senders: trainer ranks that may send; default all.

    """
    chosen = tuple(senders) if senders is not None else tuple(range(manifest.ranks))
    load = dict.fromkeys(chosen, 0)
    waiting: dict[int, list[tuple[int, int]]] = {sender: [] for sender in chosen}
    for number, entry in enumerate(manifest.entries):
        size = max(_aligned(entry.nbytes), sum(_aligned(spec_bytes(dtype, shape)) for _, dtype, shape in served_as.specs(entry)))
        owners = {piece.rank for piece in entry.pieces} & load.keys()
        sender = min(owners or load, key=lambda rank: (load[rank], rank))
        load[sender] += size
        waiting[sender].append((number, size))
    lines = [[Parcel(sender, entries) for entries in _fill(waiting[sender], bucket_bytes)] for sender in chosen]
    rounds = tuple(tuple(parcel for parcel in row if parcel is not None) for row in zip_longest(*lines))
    return Routes(manifest, served_as, rounds, audiences(layouts), chosen)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _fill(sizes: Sequence[tuple[int, int]], bound: int) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = []
    current: list[int] = []
    total = 0
    for number, size in sizes:
        if current and total + size > bound:
            found.append(tuple(current))
            current, total = [], 0
        current.append(number)
        total += size
    return [*found, tuple(current)] if current else found

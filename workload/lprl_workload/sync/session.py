"""One weight push: begin -> send on every rank -> commit | abort.

Every trainer rank runs the same session over its own end of a transport. What was not committed is never served: an engine that was
begun and not committed refuses to generate until a later push is. A push that fails ends on all ranks together, at the next vote, with
the error on the rank that had it; when a rank does not come to a vote, the trainer counts as lost (`peers.py`).
"""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from lprl_workload.data import Bucket, NamedTensor, SyncReport
from lprl_workload.process.errors import EngineLostError
from lprl_workload.quant.error import relative_rms
from lprl_workload.sync.assemble import Assembly, Taker, Whole
from lprl_workload.sync.buckets import make_bucket
from lprl_workload.sync.checks import Check
from lprl_workload.sync.checksum import checksums
from lprl_workload.sync.manifest import WeightSource
from lprl_workload.sync.peers import AbandonedError, Peers, together
from lprl_workload.sync.routes import Audience, Routes, Target
from lprl_workload.sync.serve import Notes, quantise_batch


class Transport(Protocol):
    """One rank's way to the engines. `begin`, `open_round` and `commit` are called on the first sender only."""

    def begin(self, version: int, strong: bool) -> None:
        """Have every engine stop serving and expect `version`."""

    def open_round(self) -> None:
        """Tell whoever has to know that a round follows."""

    def send(self, bucket: Bucket, to: Sequence[Target]) -> None:
        """Bring one bucket to engine ranks; returns when its memory may be reused."""

    def close_round(self) -> None:
        """Every sender, after its buckets of a round."""

    def commit(self, version: int, checks: Sequence[tuple[Sequence[Target], Check]]) -> None:
        """Have every engine rank compare and serve; raises WeightMismatchError from the first that got something else."""

    def abort(self, why: str, first: bool) -> EngineLostError | None:
        """Every rank: have the engines (where `first`) give the update up, and refuse to serve. Raises nothing: an engine may be gone.

        Returns a lost engine where that is known on this rank only: it may be what another rank could not go on for.
        """


class Session(Taker):
    """One push of one rank. Use `push`, or the four steps in order."""

    def __init__(self, routes: Routes, transport: Transport, peers: Peers, seconds: Callable[[], float] = time.monotonic) -> None:
        """Nothing is sent before `begin`."""
        self._routes, self._transport, self._peers, self._clock = routes, transport, peers, seconds
        self._started = seconds()
        self._first = peers.rank == routes.senders[0]
        self._strong = False
        self._notes = Notes()
        self._sums: dict[tuple[int, str], Tensor] = {}
        self._nbytes = 0
        self._version = -1

    def begin(self, version: int, strong: bool) -> None:
        """Stop the engines from serving; on every rank."""
        self._version, self._strong = version, strong
        self._together(lambda: self._transport.begin(version, strong) if self._first else None)

    def send(self, source: WeightSource) -> None:
        """Send this rank's parcels; on every rank."""
        Assembly(source, self._routes, self._peers, self._strong).deliver(self)

    def open_round(self) -> None:
        """See Taker."""
        self._transport.open_round()

    def close_round(self) -> None:
        """See Taker."""
        self._transport.close_round()

    def take(self, whole: Whole) -> None:
        """Quantise one parcel and send each audience its part."""
        served = quantise_batch(whole, self._routes.served_as, self._notes)
        for number, audience in enumerate(self._routes.audiences):
            items = [part for item in served if (part := _part(audience, item)) is not None]
            if self._strong:
                found = checksums([item.tensor for item in items])
                self._sums |= {(number, item.name): value for item, value in zip(items, found, strict=True)}
            if items:
                bucket = make_bucket(items)
                self._nbytes += bucket.data.numel()
                self._transport.send(bucket, audience.targets)

    def commit(self) -> SyncReport:
        """Have the engines verify and serve; on every rank. Raises WeightMismatchError, UserError for values that are not finite."""
        errors: dict[str, tuple[float, float]] = {}

        def settle() -> None:
            errors.update(self._notes.settle())

        self._together(settle)
        totals, sums = self._totals(errors)
        checks = [(audience.targets, self._check(number, audience, sums)) for number, audience in enumerate(self._routes.audiences)]
        self._together(lambda: self._transport.commit(self._version, checks) if self._first else None)
        tensors = sum(len(self._routes.served_as.specs(entry)) for entry in self._routes.manifest.entries)
        error = relative_rms(*totals)
        return SyncReport(
            self._version, tensors, int(sums[0]), self._clock() - self._started, error, "checksum" if self._strong else "counts"
        )

    def abort(self, why: str) -> EngineLostError | None:
        """Have the engines give the update up; on every rank, whatever happened before. Raises nothing; returns a lost engine, if known."""
        return self._transport.abort(why, self._first)

    def _together(self, action: Callable[[], object]) -> None:
        """Do something that may fail on one rank, and leave together when it did."""
        together(self._peers, action)

    def _totals(self, errors: dict[str, tuple[float, float]]) -> tuple[tuple[float, float], list[int]]:
        """Return (squared error, squared weight), summed in the manifest's order whoever sent what, and bytes + checksums of all ranks."""
        entries, audiences = self._routes.manifest.entries, self._routes.audiences
        table = torch.zeros(len(entries), 2, dtype=torch.float64)
        for number, entry in enumerate(entries):
            if entry.name in errors:
                table[number] = torch.tensor(errors[entry.name], dtype=torch.float64)
        rows = self._peers.total(table).tolist()
        names = self._positions() if self._strong else {}
        sums = torch.zeros(1 + len(names) * len(audiences), dtype=torch.int64)
        sums[0] = self._nbytes
        if self._sums:
            places = [1 + audience * len(names) + names[name] for audience, name in self._sums]
            sums[places] = _in_host_memory(list(self._sums.values()))
        return (sum(row[0] for row in rows), sum(row[1] for row in rows)), self._peers.total(sums).tolist()

    def _positions(self) -> dict[str, int]:
        specs = (spec for entry in self._routes.manifest.entries for spec in self._routes.served_as.specs(entry))
        return {name: number for number, (name, _, _) in enumerate(specs)}

    def _check(self, number: int, audience: Audience, sums: list[int]) -> Check:
        specs = [s for entry in self._routes.manifest.entries for s in self._routes.served_as.specs(entry)]
        taken = [(name, dtype, cut) for name, dtype, shape in specs if (cut := _cut(audience, name, dtype, shape)) is not None]
        if not self._strong or "checksum" not in audience.layout.checks:
            return Check.of(taken)
        start, positions = 1 + number * len(specs), self._positions()
        return Check.of(taken, {name: sums[start + positions[name]] for name, _, _ in taken})


def _in_host_memory(values: Sequence[Tensor]) -> Tensor:
    """Return scalars that lie on several devices (shapes of INT4 weights stay in host memory) as one tensor, one copy a device."""
    found = torch.empty(len(values), dtype=torch.int64)
    for device in {value.device for value in values}:
        there = [number for number, value in enumerate(values) if value.device == device]
        found[there] = torch.stack([values[number] for number in there]).cpu()
    return found


def _part(audience: Audience, item: NamedTensor) -> NamedTensor | None:
    """Return the part of a served tensor an audience takes."""
    part = audience.part((item.name, "", tuple(item.tensor.shape)))
    if part is None:
        return None
    return NamedTensor(item.name, item.tensor[part]) if part else item


def _cut(audience: Audience, name: str, dtype: str, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the shape of the part an audience takes."""
    part = audience.part((name, dtype, shape))
    if part is None:
        return None
    return (*(len(range(*s.indices(n))) for s, n in zip(part, shape, strict=False)), *shape[len(part) :])


def push(session: Session, source: WeightSource, version: int, strong: bool = False) -> SyncReport:
    """Do one whole push; on every rank. What it raises was raised after every engine was told to give the update up."""
    try:
        session.begin(version, strong)
        session.send(source)
        return session.commit()
    except Exception as error:
        lost = session.abort(str(error))
        if lost is not None and isinstance(error, AbandonedError):
            raise lost from error
        raise

"""From the pieces ranks own to whole tensors on the ranks that send them, a round at a time.

A round: every rank reads what it owns of the round's tensors (may fail, nobody waits for it), all vote, pieces go to their senders, and
each sender takes its parcel (may fail: the next vote says so). Exchanges are the only meetings beside votes, and follow one directly.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from lprl_workload.data import NamedTensor
from lprl_workload.io.dtypes import DTYPES
from lprl_workload.process.errors import WeightMismatchError
from lprl_workload.process.movement import here
from lprl_workload.sync.buckets import as_bytes
from lprl_workload.sync.checksum import checksum
from lprl_workload.sync.manifest import Entry, WeightSource
from lprl_workload.sync.peers import Peers, vote
from lprl_workload.sync.routes import Parcel, Routes

Whole = list[tuple[Entry, Tensor]]
Held = dict[tuple[str, tuple[int, ...]], Tensor]


class Taker:
    """What a sender does with its parcels."""

    def open_round(self) -> None:
        """Before the parcels of a round, on the first sender."""

    def take(self, whole: Whole) -> None:
        """One parcel, whole tensors."""

    def close_round(self) -> None:
        """After the parcels of a round, on every sender, also where `take` failed."""


class Assembly:
    """One pass over the routes; `strong` compares checksums of pieces and of what they became."""

    def __init__(self, source: WeightSource, routes: Routes, peers: Peers, strong: bool = False) -> None:
        """Nothing is read yet."""
        self._source, self._routes, self._peers = source, routes, peers
        self._strong = strong and peers.world > 1
        self._sums: dict[int, Tensor] = {}

    def deliver(self, taker: Taker) -> None:
        """Run every round; on every rank. Raises the error of this rank, AbandonedError for another's, TrainerLostError."""
        failure: Exception | None = None
        for parcels in self._routes.rounds:
            held: Held = {}
            try:
                if failure is None:
                    held = self._read(parcels)
            except Exception as error:
                failure = error
            vote(self._peers, failure)
            incoming = self._exchange(parcels, held)
            try:
                self._take(parcels, held, incoming, taker)
            except Exception as error:
                failure = error
        vote(self._peers, failure)
        if self._strong:
            self._compare()

    def _read(self, parcels: Sequence[Parcel]) -> Held:
        """Read what this rank owns of a round's tensors."""
        rank = self._peers.rank
        mine = {(e.name, p.offset): (e, p) for parcel in parcels for e in self._routes.entries(parcel) for p in e.pieces if p.rank == rank}
        held: Held = {}
        for shard in self._source.shards(list(dict.fromkeys(name for name, _ in mine))):
            entry, piece = mine[shard.name, shard.offset]
            if tuple(shard.tensor.shape) != piece.shape or shard.tensor.dtype != DTYPES[entry.dtype]:
                found = f"{shard.tensor.dtype} {list(shard.tensor.shape)}"
                raise WeightMismatchError(f"{shard.name}: this rank holds {found}, its manifest says {entry.dtype} {list(piece.shape)}")
            held[shard.name, shard.offset] = shard.tensor
            here.tick()
        if missing := mine.keys() - held.keys():
            raise WeightMismatchError(f"{min(missing)[0]}: this rank did not hand out its piece")
        return held

    def _exchange(self, parcels: Sequence[Parcel], held: Held) -> list[Tensor]:
        """Give pieces to their senders, if any has to travel; return the bytes every rank gave."""
        peers = self._peers
        if not any(p.rank != parcel.sender for parcel in parcels for e in self._routes.entries(parcel) for p in e.pieces):
            return []
        by_sender = {parcel.sender: self._routes.entries(parcel) for parcel in parcels}
        nothing = torch.empty(0, dtype=torch.uint8, device=self._source.device)

        def given(to: int) -> Tensor:
            if to == peers.rank:
                return nothing
            parts = [as_bytes(held[e.name, p.offset]) for e in by_sender.get(to, []) for p in e.pieces if p.rank == peers.rank]
            return torch.cat([nothing, *parts])

        mine = by_sender.get(peers.rank, [])
        sizes = [
            0 if owner == peers.rank else sum(e.piece_bytes(p) for e in mine for p in e.pieces if p.rank == owner)
            for owner in range(peers.world)
        ]
        return peers.exchange([given(to) for to in range(peers.world)], sizes, self._source.device)

    def _take(self, parcels: Sequence[Parcel], held: Held, incoming: Sequence[Tensor], taker: Taker) -> None:
        """Do this rank's part of a round."""
        rank = self._peers.rank
        if self._strong:
            for parcel in parcels:
                self._note(parcel, held)
        if rank not in self._routes.senders:
            return
        with ExitStack() as stack:
            stack.callback(taker.close_round)
            if rank == self._routes.senders[0]:
                taker.open_round()
            for parcel in parcels:
                if parcel.sender == rank:
                    whole = self._whole(self._routes.entries(parcel), held, incoming)
                    self._note_whole(parcel, whole)
                    taker.take(whole)

    def _whole(self, entries: Sequence[Entry], held: Held, incoming: Sequence[Tensor]) -> Whole:
        """Put the pieces of a parcel together."""
        at = [0] * self._peers.world
        found: Whole = []
        for entry in entries:
            if len(entry.pieces) == 1 and entry.pieces[0].rank == self._peers.rank:
                found.append((entry, held[entry.name, entry.pieces[0].offset]))
                continue
            whole = torch.empty(entry.shape, dtype=DTYPES[entry.dtype], device=self._source.device)
            for piece in entry.pieces:
                if piece.rank == self._peers.rank:
                    whole[piece.index] = held[entry.name, piece.offset]
                    continue
                nbytes = entry.piece_bytes(piece)
                raw = incoming[piece.rank][at[piece.rank] : at[piece.rank] + nbytes]
                at[piece.rank] += nbytes
                # A copy where it lies askew: pieces before it may be of another dtype.
                whole[piece.index] = raw.clone().view(whole.dtype).view(piece.shape)
            found.append((entry, whole))
        return found

    def _note(self, parcel: Parcel, held: Held) -> None:
        """Add the checksums of this rank's pieces."""
        for number in parcel.entries:
            entry = self._routes.manifest.entries[number]
            for piece in entry.pieces:
                if piece.rank == self._peers.rank:
                    self._add(number, checksum(held[entry.name, piece.offset], entry.shape, piece.offset))

    def _note_whole(self, parcel: Parcel, whole: Whole) -> None:
        """Take away the checksums of what the pieces became: the total over ranks is then zero."""
        if self._strong:
            for number, (_, tensor) in zip(parcel.entries, whole, strict=True):
                self._add(number, -checksum(tensor))

    def _add(self, number: int, value: Tensor) -> None:
        self._sums[number] = self._sums[number] + value if number in self._sums else value

    def _compare(self) -> None:
        """Raise WeightMismatchError, on every rank, when a tensor is not what its pieces were."""
        entries = self._routes.manifest.entries
        sums = torch.zeros(len(entries), dtype=torch.int64)
        if self._sums:
            sums[torch.tensor(list(self._sums))] = torch.stack(list(self._sums.values())).cpu()
        wrong = self._peers.total(sums).nonzero().flatten().tolist()
        if wrong:
            raise WeightMismatchError(
                f"{len(wrong)} tensors, such as {entries[wrong[0]].name}, are not what the ranks' pieces of them were"
            )


def gather(source: WeightSource, routes: Routes, peers: Peers, take: Callable[[NamedTensor], None]) -> None:
    """Give every whole tensor to `take` on the one rank that `routes` lets send; on every rank. Raises what `deliver` raises."""

    class Each(Taker):
        def take(self, whole: Whole) -> None:
            for entry, tensor in whole:
                take(NamedTensor(entry.name, tensor))

    Assembly(source, routes, peers).deliver(Each())

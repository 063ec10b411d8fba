"""The torch trainer's weights as a WeightSource: FSDP2's rows where it shards, a fair share of whole tensors where ranks are replicas."""

from collections.abc import Iterator, Sequence

import torch

from lprl_workload.hf.slots import WeightSlot
from lprl_workload.quant.specs import spec_bytes
from lprl_workload.sync.manifest import Entry, Piece, Shard, WeightManifest
from lprl_workload.train.build import Trained
from lprl_workload.train.group import Group


class TorchSource:
    """One rank's weights. BF16, except router correction biases: they are float32 in published checkpoints and steer a discrete choice."""

    def __init__(self, trained: Trained, group: Group) -> None:
        """Read nothing yet; masters are read when `shards` comes to them."""
        self._trained, self._group = trained, group
        self._slots = {slot.name: slot for slot in trained.slots}
        total = sum(self._nbytes(slot) for slot in trained.slots)
        shares, seen = {}, 0
        for slot in trained.slots:
            shares[slot.name] = min(group.world - 1, seen * group.world // max(1, total))
            seen += self._nbytes(slot)
        self._manifest = WeightManifest(group.world, tuple(self._entry(slot, shares[slot.name]) for slot in trained.slots))

    @property
    def device(self) -> torch.device:
        """Return the rank's device."""
        return self._group.device

    def manifest(self) -> WeightManifest:
        """Return who owns what, sorted by name."""
        return self._manifest

    def shards(self, names: Sequence[str]) -> Iterator[Shard]:
        """Yield this rank's pieces of `names`; nothing of another rank is needed for that."""
        self._trained.masters.require("weights")
        owned = {entry.name: entry for entry in self._manifest.entries}
        for name in names:
            for piece in owned[name].pieces:
                if piece.rank == self._group.rank:
                    yield Shard(name, piece.offset, self._read(self._slots[name], piece))

    @torch.no_grad()
    def _read(self, slot: WeightSlot, piece: Piece) -> torch.Tensor:
        if slot.is_buffer:
            return self._trained.buffers[slot.name].detach().to(self.device, torch.float32, copy=True)
        master = self._trained.masters.items[slot.parameter]
        values = master.value
        if slot.rows is not None:
            first = slot.rows[0] + piece.offset[0] - master.first
            values = values[(slice(first, first + piece.shape[0]), *slot.index[1:])]
        elif slot.index:
            expert, *rest = slot.index
            assert isinstance(expert, int)
            values = values[(expert - master.first, *rest)]
        return values.to(device=self.device, dtype=torch.bfloat16).contiguous()

    def _nbytes(self, slot: WeightSlot) -> int:
        return spec_bytes("F32" if slot.is_buffer else "BF16", slot.shape)

    def _entry(self, slot: WeightSlot, share: int) -> Entry:
        dtype = "F32" if slot.is_buffer else "BF16"
        return Entry(slot.name, dtype, slot.shape, self._pieces(slot, share))

    def _pieces(self, slot: WeightSlot, share: int) -> tuple[Piece, ...]:
        whole = (0,) * len(slot.shape)
        if slot.is_buffer or not self._trained.masters.items[slot.parameter].sharded:
            return (Piece(share, whole, slot.shape),)
        rows = self._trained.masters.items[slot.parameter].parameter.shape[0]
        chunk = -(-rows // self._group.world)
        if slot.index and slot.rows is None:
            expert = slot.index[0]
            assert isinstance(expert, int)
            return (Piece(expert // chunk, whole, slot.shape),)
        start, stop = slot.rows or (0, rows)
        cut = cut_rows(start, stop, chunk)
        return tuple(Piece(rank, (low - start, *whole[1:]), (high - low, *slot.shape[1:])) for rank, low, high in cut)


def cut_rows(start: int, stop: int, chunk: int) -> list[tuple[int, int, int]]:
    """Return (rank, first, last) of the rows [start, stop) of a parameter of which each rank holds `chunk`, those of one rank together."""
    return [(rank, max(start, rank * chunk), min(stop, (rank + 1) * chunk)) for rank in range(start // chunk, -(-stop // chunk))]

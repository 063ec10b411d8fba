"""What an engine rank must have got, and what it did get.

Cheap, at every push: names, dtypes, shapes, bytes and version. Strong, when the sender asks for it: a checksum of every tensor, computed
where the bytes lie, by the sender when it packs them and by the engine when they arrive.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lprl_workload.data import Bucket
from lprl_workload.process.errors import WeightMismatchError
from lprl_workload.quant.specs import Spec, spec_bytes
from lprl_workload.sync.buckets import unpack
from lprl_workload.sync.checksum import checksums


def table_of(specs: Iterable[Spec]) -> str:
    """Return a hash of names, dtypes and shapes, whatever their order; of the table only, never of weights."""
    lines = sorted(f"{name} {dtype} {','.join(map(str, shape))}\n" for name, dtype, shape in specs)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Check:
    """What a complete update of one engine rank is."""

    tensors: int
    nbytes: int
    table: str
    checksums: Mapping[str, int] | None = None
    """By name; None: not compared this time."""

    @classmethod
    def of(cls, specs: Iterable[Spec], checksums: Mapping[str, int] | None = None) -> "Check":
        """Return the check of a set of tensors."""
        listed = list(specs)
        return cls(len(listed), sum(spec_bytes(dtype, shape) for _, dtype, shape in listed), table_of(listed), checksums)


@dataclass(slots=True)
class Arrived:
    """The receiver's side of one update."""

    strong: bool
    specs: dict[str, Spec] = field(default_factory=dict)
    sums: dict[str, Tensor] = field(default_factory=dict)

    def add(self, bucket: Bucket, device: torch.device | str | None = None) -> None:
        """Note the tensors of a bucket; raises WeightMismatchError when one came before, or does not fit the bucket."""
        arrived: list[Tensor] = []
        for item, entry in zip(unpack(bucket), bucket.entries, strict=True):
            if entry.name in self.specs:
                raise WeightMismatchError(f"{entry.name}: sent twice in one update")
            self.specs[entry.name] = (entry.name, entry.dtype, entry.shape)
            if self.strong:
                arrived.append(item.tensor if device is None else item.tensor.to(device))
        if arrived:
            self.sums |= {entry.name: value for entry, value in zip(bucket.entries, checksums(arrived), strict=True)}

    def compare(self, check: Check) -> str:
        """Return how what arrived differs from what should have, in words; empty when it does not."""
        mine = Check.of(self.specs.values())
        if (mine.tensors, mine.nbytes) != (check.tensors, check.nbytes):
            return f"{mine.tensors} tensors of {mine.nbytes} bytes arrived, {check.tensors} of {check.nbytes} bytes were sent"
        if mine.table != check.table:
            return "names, dtypes or shapes differ from the sender's"
        if check.checksums is None:
            return ""
        if not self.strong:
            return "checksums were to be compared, but the update was not begun so"
        names = sorted(self.sums)
        sums = dict(zip(names, torch.stack([self.sums[name] for name in names]).tolist(), strict=True)) if names else {}
        wrong = [name for name in names if sums[name] != check.checksums.get(name)]
        return f"the bytes of {len(wrong)} tensors differ from the sender's, such as {wrong[0]}" if wrong else ""

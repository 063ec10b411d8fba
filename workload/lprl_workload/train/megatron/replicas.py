"""Ranks that hold the same parameters: one keeps the master of each (Mapping.keepers). Gradients go there, new weights come from there.

So masters, moments and their update are divided over data-parallel ranks, as Megatron's distributed optimizer divides its own; whole
parameters, not ranges of elements, since blocks and groups are quantised where the master lies.
"""

from collections.abc import Iterable, Iterator, Mapping

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from torch import Tensor

from lprl_workload.process.movement import here
from lprl_workload.train.megatron.mapping import Held

BUCKET_BYTES = 1 << 28
"""Sent at a time: bounds what a rank needs beside its own."""
Key = tuple[int, str]
Bucket = tuple[int, list[Tensor]]
"""Keeper, and what it keeps."""


class Replicas:
    """A rank's parameters, and who keeps each."""

    def __init__(self, rank: int, held: Iterable[Held], keepers: Mapping[Key, int]) -> None:
        """Take what the rank has."""
        self._rank, self._keepers = rank, keepers
        self._kinds = {item.key: item.of_experts for item in held}

    def keeps(self, key: Key) -> bool:
        """Return whether this rank keeps a parameter's master."""
        return self._keepers[key] == self._rank

    @torch.no_grad()
    def add_up(self, gradients: Mapping[Key, Tensor]) -> None:
        """Add gradients over the ranks that have a share each, in place, where their masters are; elsewhere they are of no more use.

        On all ranks together, as `hand_out`.
        """
        for group, (keeper, tensors) in self._buckets(gradients):
            flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
            dist.reduce(flat, keeper, group=group)
            if keeper == self._rank:
                _spread(flat, tensors)

    @torch.no_grad()
    def hand_out(self, weights: Mapping[Key, Tensor]) -> None:
        """Give every rank the weights that their keepers have."""
        for group, (keeper, tensors) in self._buckets(weights):
            mine = keeper == self._rank
            flat = torch.cat([tensor.reshape(-1) for tensor in tensors]) if mine else _room(tensors)
            dist.broadcast(flat, keeper, group=group)
            if not mine:
                _spread(flat, tensors)

    def _buckets(self, tensors: Mapping[Key, Tensor]) -> Iterator[tuple[dist.ProcessGroup, Bucket]]:
        """Yield what goes over a group together, in the order every rank of the group has."""
        for of_experts in (False, True):
            mine = [key for key in tensors if self._kinds[key] == of_experts]
            group = _group(of_experts) if mine else None
            if group is None or dist.get_world_size(group) == 1:
                continue
            by_keeper: dict[tuple[int, torch.dtype], list[Tensor]] = {}
            for key in sorted(mine):
                by_keeper.setdefault((self._keepers[key], tensors[key].dtype), []).append(tensors[key])
            for (keeper, _), found in sorted(by_keeper.items(), key=lambda item: (item[0][0], str(item[0][1]))):
                yield from ((group, (keeper, some)) for some in _cut(found))


def _group(of_experts: bool) -> dist.ProcessGroup:
    found: dist.ProcessGroup = (
        parallel_state.get_expert_data_parallel_group()
        if of_experts
        else parallel_state.get_data_parallel_group(with_context_parallel=True)
    )
    return found


def _cut(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    some, size = list[Tensor](), 0
    for tensor in tensors:
        if some and size + tensor.nbytes > BUCKET_BYTES:
            yield some
            some, size = [], 0
        some.append(tensor)
        size += tensor.nbytes
        here.tick()
    yield some


def _room(tensors: list[Tensor]) -> Tensor:
    return torch.empty(sum(tensor.numel() for tensor in tensors), dtype=tensors[0].dtype, device=tensors[0].device)


def _spread(flat: Tensor, tensors: list[Tensor]) -> None:
    for tensor, values in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(values.view_as(tensor))

"""The trainer's process group: the few collectives it needs, no-ops for one rank."""

from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import TCPStore

from lprl_workload.config import RankInfo
from lprl_workload.sync.peers import Alone, GroupPeers, Peers

TIMEOUT = timedelta(minutes=30)
"""For the ranks to come; afterwards the least that a collective waits: what hangs is found before, by whoever watches the ranks."""


def open_store(host: str, port: int, serve: bool) -> TCPStore:
    """Open the ranks' meeting point (`serve`; port 0 takes a free one and keeps it: read `.port`), or connect to it."""
    return TCPStore(host, port, None, serve, TIMEOUT, wait_for_workers=False)


class Group:
    """All trainer ranks. Every rank calls the same methods in the same order."""

    def __init__(self, rank: RankInfo, stall_seconds: float = 1800) -> None:
        """Join the group (gloo on CPUs, NCCL on GPUs); a world of one joins nothing. `stall_seconds`: see RunConfig."""
        self._stall_s = stall_seconds
        self.rank, self.world = rank.rank, rank.world
        self.device = torch.device(rank.device)
        if rank.world > 1:
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)
            backend = "gloo" if self.device.type == "cpu" else "cpu:gloo,cuda:nccl"
            longest = max(TIMEOUT, timedelta(seconds=self._stall_s))
            store = rank.store or open_store(rank.master_addr, rank.master_port, serve=rank.rank == 0)
            dist.init_process_group(backend, store=store, rank=rank.rank, world_size=rank.world, timeout=longest)

    def sum_(self, tensor: Tensor) -> Tensor:
        """Add `tensor` over ranks in place; the order of additions depends on the number of ranks only."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def max_(self, tensor: Tensor) -> Tensor:
        """Take the maximum over ranks in place."""
        if self.world > 1:
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor

    def gather_rows(self, rows: Tensor, total: int) -> Tensor:
        """Join equal shards of dimension 0 (the last ones shorter or empty) into `total` rows, on every rank."""
        if self.world == 1:
            return rows
        chunk = -(-total // self.world)
        padded = rows.new_zeros((chunk, *rows.shape[1:]))
        padded[: rows.shape[0]] = rows
        parts = [torch.empty_like(padded) for _ in range(self.world)]
        dist.all_gather(parts, padded)
        return torch.cat(parts)[:total]

    def peers(self) -> Peers:
        """Make the group of a weight push, on every rank: apart from the trainer's own, so that its timeout can be shorter.

        At a vote a rank waits for as long as a rank may stand still: longer than another one may have to wait for an engine.
        """
        if self.world == 1:
            return Alone()
        return GroupPeers(dist.new_group(timeout=timedelta(seconds=self._stall_s / 2)), self.rank, self.world)

    def close(self) -> None:
        """Leave the group."""
        if self.world > 1 and dist.is_initialized():
            dist.destroy_process_group()

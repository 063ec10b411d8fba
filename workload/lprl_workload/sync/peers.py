"""The trainer ranks among themselves during a push: one vote and one exchange a round.

The rule of this folder: **no collective inside an iterator that its consumer may abandon, and none whose position another rank cannot
know.** Ranks meet only in `agree` and in what directly follows an agreement; so either all of them leave a push together, or (a rank
died, or does not come in time) the meeting itself fails, and then the trainer counts as lost.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from lprl_workload.process.errors import TrainerLostError


class Peers(Protocol):
    """All ranks of the trainer; every rank calls the same methods in the same order."""

    rank: int
    world: int

    def agree(self, well: bool) -> bool:
        """Return whether every rank passed True. Raises TrainerLostError when not all of them came."""

    def exchange(self, out: Sequence[Tensor], sizes: Sequence[int], device: torch.device) -> list[Tensor]:
        """Give `out[r]` (uint8) to each rank r; return what each gave to this one, `sizes[r]` bytes, on `device`. TrainerLostError."""

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of a host tensor over ranks. Raises TrainerLostError."""


class Alone:
    """A trainer of one rank."""

    rank, world = 0, 1

    def agree(self, well: bool) -> bool:
        """Return the only opinion."""
        return well

    def exchange(self, out: Sequence[Tensor], sizes: Sequence[int], device: torch.device) -> list[Tensor]:
        """Keep what stays."""
        return [out[0]]

    def total(self, values: Tensor) -> Tensor:
        """Return the only values."""
        return values


class GroupPeers:
    """Ranks of a torch process group of their own, whose timeout is the longest a rank waits for the others."""

    def __init__(self, group: Any, rank: int, world: int) -> None:
        """`group`: gloo for host tensors, and NCCL beside it for tensors of GPUs."""
        self._group, self.rank, self.world = group, rank, world

    def agree(self, well: bool) -> bool:
        """Vote with a host tensor: over gloo the vote returns when it is decided, not when it is enqueued."""
        return int(self.total(torch.tensor([0 if well else 1], dtype=torch.int64))) == 0

    def exchange(self, out: Sequence[Tensor], sizes: Sequence[int], device: torch.device) -> list[Tensor]:
        """Do one all-to-all of unequal parts."""
        incoming = torch.empty(sum(sizes), dtype=torch.uint8, device=device)
        outgoing = torch.cat([part.reshape(-1) for part in out]) if out else incoming
        self._meet(lambda: self._group.alltoall_base(incoming, outgoing, list(sizes), [part.numel() for part in out]))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return list(torch.split(incoming, list(sizes)))

    def total(self, values: Tensor) -> Tensor:
        """All-reduce in place."""
        self._meet(lambda: self._group.allreduce([values]))
        return values

    def _meet(self, begin: Any) -> None:
        try:
            begin().wait()
        except RuntimeError as error:
            raise TrainerLostError(f"rank {self.rank}: the other ranks did not come to the weight push: {error}") from error


class AbandonedError(RuntimeError):
    """Another rank could not go on, and said so: this one left the weight push with it. Not the cause of anything."""


def vote(peers: Peers, failure: Exception | None) -> None:
    """Leave together, or not at all: raises `failure` here, AbandonedError when another rank has one. Raises TrainerLostError."""
    agreed = peers.agree(failure is None)
    if failure is not None:
        raise failure
    if not agreed:
        raise AbandonedError("another rank could not go on with the weight push")


def together(peers: Peers, action: Callable[[], object]) -> None:
    """Do `action`, then vote: raises its error here, and AbandonedError on the ranks where it went well."""
    failure: Exception | None = None
    try:
        action()
    except Exception as error:
        failure = error
    vote(peers, failure)

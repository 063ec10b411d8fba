"""Log-probabilities and entropies of drawn tokens where the vocabulary is cut over a tensor group: never whole rows of logits."""

import torch
import torch.distributed as dist
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
    reduce_from_tensor_model_parallel_region,
)
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lprl_workload.hf.head import float32_product
from lprl_workload.train.batch import MicroBatch
from lprl_workload.train.policy import LOGIT_ELEMENTS


class VocabHead:
    """The output head of one tensor rank: its rows of the vocabulary, without the padding's."""

    def __init__(self, first: int, rows: int, group: dist.ProcessGroup, sequence_parallel: bool) -> None:
        """Take which tokens of the vocabulary this rank has: `rows` from `first` on (none where only padding is left)."""
        self._first, self._rows, self._group, self._sequence_parallel = first, rows, group, sequence_parallel

    def __call__(
        self, hidden: Tensor, weight: Tensor, batch: MicroBatch, temperature: float, entropy_gradient: bool
    ) -> tuple[Tensor, Tensor]:
        """Return (log-probabilities [T], entropies [T]), float32, of a batch's targets, on every rank of the group alike.

        Args:
            hidden: last hidden states [N, 1, H], of sequence-parallel ranks each its share of N.
            weight: the head's rows of this rank, padding included.
            batch: the samples' tokens.
            temperature: logits are divided by it.
            entropy_gradient: whether entropies carry a gradient.

        """
        if self._sequence_parallel:
            hidden = gather_from_sequence_parallel_region(hidden, group=self._group)
        else:
            hidden = copy_to_tensor_model_parallel_region(hidden, group=self._group)
        # index_select: its backward adds in index order on a CPU, the backward of x[i] in thread order.
        chosen, rows = hidden[:, 0].index_select(0, batch.predictors), weight[: self._rows]
        # Of the padded rows, equally many on every rank: each piece is a few collectives.
        each = max(1, LOGIT_ELEMENTS // weight.shape[0])
        if chosen.shape[0] <= each:
            return self._piece(chosen, rows, batch.rows, batch.targets, temperature, entropy_gradient)
        counts = torch.bincount(batch.rows // each).tolist()
        pieces = zip(torch.split(chosen, each), torch.split(batch.rows, counts), torch.split(batch.targets, counts), strict=True)
        parts = [
            checkpoint(self._piece, h, rows, r - n * each, t, temperature, entropy_gradient, use_reentrant=False)
            for n, (h, r, t) in enumerate(pieces)
        ]
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])

    def _piece(
        self, hidden: Tensor, weight: Tensor, rows: Tensor, targets: Tensor, temperature: float, entropy_gradient: bool
    ) -> tuple[Tensor, Tensor]:
        logits = float32_product(hidden, weight)
        logits = logits / temperature if temperature != 1.0 else logits
        # Relative to the largest of all ranks; what is subtracted cancels out, gradient and all.
        shifted = logits - self._largest(logits)
        total = self._sum(shifted.exp().sum(dim=-1)).log()
        local = targets - self._first
        mine = (local >= 0) & (local < self._rows)
        places = rows[mine] * max(1, self._rows) + local[mine]
        values = shifted.flatten().index_select(0, places)
        own = torch.zeros(targets.shape, device=shifted.device).index_put((mine.nonzero()[:, 0],), values)
        chosen = self._sum(own) - total.index_select(0, rows)
        if not entropy_gradient:
            shifted, total = shifted.detach(), total.detach()
        # Every rank uses the total for its own columns: its gradient is the sum of theirs.
        logp = shifted - copy_to_tensor_model_parallel_region(total, group=self._group)[:, None]
        entropy = self._sum(-(logp.exp() * logp).sum(dim=-1))
        return chosen, entropy.index_select(0, rows)

    def _sum(self, values: Tensor) -> Tensor:
        """Add over the group; every rank's gradient is that of its own addend."""
        found: Tensor = reduce_from_tensor_model_parallel_region(values, group=self._group)
        return found

    @torch.no_grad()
    def _largest(self, logits: Tensor) -> Tensor:
        """Return the largest logit of each row over all ranks, [rows, 1]."""
        none = torch.full((logits.shape[0], 1), float("-inf"), device=logits.device)
        largest = torch.cat([none, logits], dim=1).amax(dim=1, keepdim=True)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=self._group)
        return largest

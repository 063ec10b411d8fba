"""Log-probabilities and entropies of drawn tokens where the vocabulary is cut over a tensor group: never whole rows of logits.

With z a row of logits over the temperature, Z the sum of exp(z) and p = exp(z) / Z, over all ranks:

    log-probability of token t    z_t - log Z            gradient of z_j    [j = t] - p_j
    entropy H                     log Z - sum p z                           -p_j (log p_j + H)

so backward needs log Z and H of each row and the logits again, which are cheaper made twice than kept.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.tensor_parallel.mappings import copy_to_tensor_model_parallel_region, gather_from_sequence_parallel_region
from torch import Tensor

from lprl_workload.hf.head import float32_product, weight_gradient
from lprl_workload.train.batch import MicroBatch
from lprl_workload.train.policy import LOGIT_ELEMENTS


@dataclass(frozen=True, slots=True)
class _Targets:
    """What is asked of the logits of U hidden states: T tokens, some of them in this rank's columns of the vocabulary."""

    rows: Tensor
    """int64 [T] ascending: the hidden state that predicts each."""
    mine: Tensor
    """int64 [M]: which of them this rank has."""
    columns: Tensor
    """int64 [M]: where."""
    pieces: tuple[tuple[slice, ...], ...]
    """Of hidden states whose logits are there at a time, of the targets they predict, and of those that are mine."""
    temperature: float
    group: dist.ProcessGroup

    def logits(self, hidden: Tensor, weight: Tensor) -> Tensor:
        """Return float32 logits over the temperature, [states, columns], a tensor of its own."""
        found = float32_product(hidden, weight)
        return found.div_(self.temperature) if self.temperature != 1.0 else found

    def places(self, states: slice, mine: slice, width: int) -> Tensor:
        """Return where the logits of my targets lie in a piece's flattened logits of `width` columns."""
        rows = self.rows.index_select(0, self.mine[mine]) - int(states.start)
        return rows * width + self.columns[mine]


def _pieces(rows: Tensor, mine: Tensor, states: int, each: int) -> tuple[tuple[slice, ...], ...]:
    """Return `states` hidden states cut into pieces of `each` (see _Targets)."""
    edges = torch.arange(0, states + each, each, device=rows.device).clamp_(max=states)
    asked = torch.searchsorted(rows, edges)
    ends = torch.stack([edges, asked, torch.searchsorted(mine, asked)])
    return tuple(tuple(map(slice, first, last)) for first, last in pairwise(ends.t().tolist()))


class _Scores(torch.autograd.Function):
    """Hidden states [U, H] and this rank's rows [V, H] of the head -> (log-probabilities [T], entropies [U]), on all ranks alike."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: _Targets) -> tuple[Tensor, Tensor]:
        count = hidden.shape[0]
        logp, totals, entropies = (torch.empty(n, device=hidden.device) for n in (len(targets.rows), count, count))
        for states, asked, mine in targets.pieces:
            logits = targets.logits(hidden[states], weight)
            # Relative to the largest of all ranks.
            largest = _largest(logits, targets.group)
            logits.sub_(largest)
            own = torch.zeros(asked.stop - asked.start, device=logits.device)
            values = logits.flatten().index_select(0, targets.places(states, mine, logits.shape[1]))
            own.index_copy_(0, targets.mine[mine] - asked.start, values)
            powers = logits.exp()
            sums = torch.cat([powers.sum(dim=-1), powers.mul_(logits).sum(dim=-1), own])
            dist.all_reduce(sums, group=targets.group)
            total, weighted, own = torch.split(sums, [len(logits), len(logits), len(own)])
            log_total = total.log()
            logp[asked] = own - log_total.index_select(0, targets.rows[asked] - states.start)
            totals[states] = log_total + largest[:, 0]
            entropies[states] = log_total - weighted / total
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(hidden, weight, totals, entropies)
        ctx.targets = targets
        return logp, entropies

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        (hidden, weight, totals, entropies), targets = ctx.saved_tensors, ctx.targets
        of_logp, of_entropy = grads
        of_hidden, of_weight = torch.empty_like(hidden), torch.zeros(weight.shape, device=weight.device)
        of_rows = torch.zeros(hidden.shape[0], device=hidden.device)
        if of_logp is not None:
            of_rows.index_add_(0, targets.rows, of_logp)
        for states, _, mine in targets.pieces:
            logp = targets.logits(hidden[states], weight).sub_(totals[states, None])
            grad = logp.exp()
            if of_entropy is None:
                grad.mul_(of_rows[states, None].neg())
            else:
                factor = logp.add_(entropies[states, None]).mul_(of_entropy[states, None]).add_(of_rows[states, None])
                grad.mul_(factor.neg_())
            if of_logp is not None:
                grad.view(-1).index_add_(0, targets.places(states, mine, grad.shape[1]), of_logp.index_select(0, targets.mine[mine]))
            narrow = grad.div_(targets.temperature).to(weight.dtype) if targets.temperature != 1.0 else grad.to(weight.dtype)
            of_hidden[states] = narrow @ weight
            # Pieces are added up in float32, whatever the weights are.
            of_weight += weight_gradient(narrow, hidden[states])
        return of_hidden, of_weight, None


@torch.no_grad()
def _largest(logits: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Return the largest logit of each row over all ranks, [rows, 1]."""
    there = logits.shape[1] > 0
    largest = logits.amax(dim=1, keepdim=True) if there else torch.full((len(logits), 1), float("-inf"), device=logits.device)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=group)
    return largest


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
        chosen, local = hidden[:, 0].index_select(0, batch.predictors), batch.targets - self._first
        mine = ((local >= 0) & (local < self._rows)).nonzero()[:, 0]
        # Of the padded rows, equally many on every rank: each piece is a few collectives.
        each = max(1, LOGIT_ELEMENTS // weight.shape[0])
        pieces = _pieces(batch.rows, mine, len(chosen), each)
        targets = _Targets(batch.rows, mine, local.index_select(0, mine), pieces, temperature, self._group)
        logp, entropy = _Scores.apply(chosen, weight[: self._rows], targets)  # type: ignore[no-untyped-call]
        entropy = entropy if entropy_gradient else entropy.detach()
        return logp, entropy.index_select(0, batch.rows)

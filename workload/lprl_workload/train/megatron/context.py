"""Sequences cut over the C ranks of a context group: which tokens a rank has, and what they see and predict. Pure.

A sequence is padded to 2C equal chunks; rank c has chunks c and 2C - 1 - c, so that all ranks have as many tokens and as many pairs of a
query and a key. Two sequences of 8 tokens over two ranks:

    rank 0   0 1 . . . . 6 7 | 8 9 .. .. .. .. 14 15
    rank 1   . . 2 3 4 5 . . | . . 10 11 12 13 .. ..

Queries stay; attention (packed.py) gathers keys and values of the group for one layer at a time: they are small beside hidden states
where heads share them. What a rank answers for is the tokens its own tokens predict; answers are added up over the group, so that every
rank has all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain

import torch
from torch import Tensor

from lprl_workload.hf.packed_attention import Whole, whole
from lprl_workload.train.batch import MicroBatch


@dataclass(frozen=True, slots=True)
class Chunk:
    """Queries of one rank that lie together in a sequence, and the keys they see: all of it up to the last of them."""

    queries: int
    """How many."""
    begin: int
    """Of the sequence, in the micro-batch."""
    end: int
    """Of the queries, there."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What a rank has of a micro-batch of N tokens."""

    chunks: tuple[Chunk, ...]
    mine: Tensor
    """int64 [N / C], ascending: the tokens of this rank."""
    gathered: Tensor
    """int64 [N]: where each token lies when the tokens of all ranks lie one after the other."""


def padded(batch: MicroBatch, context: int, multiple: int) -> MicroBatch:
    """Return a micro-batch of whole sequences, each padded to a multiple of 2 x `context` tokens, all to `multiple` a rank.

    Tokens that are added come last in their sequence, or are a sequence of their own: nobody asked sees them.
    """
    unit, lengths = 2 * context, _lengths(batch)
    wide = [-(-length // unit) * unit for length in lengths]
    missing = -(sum(wide) // context) % multiple * context
    wide += [missing] if missing else []
    starts = list(accumulate(wide, initial=0))
    place = torch.cat([torch.arange(start, start + length) for start, length in zip(starts, lengths, strict=False)])
    place = place.to(batch.input_ids.device)
    ids, positions = (x.new_zeros((1, sum(wide))).index_copy_(1, place, x) for x in (batch.input_ids, batch.positions))
    layout = (whole(wide, place.device),)
    return replace(batch, input_ids=ids, positions=positions, layout=layout, predictors=place.index_select(0, batch.predictors))


def cut(batch: MicroBatch, context: int, rank: int) -> Cut:
    """Return what context rank `rank` has of a padded micro-batch."""
    by_rank = [list(chain.from_iterable(_chunks(_lengths(batch), context, r))) for r in range(context)]
    tokens = torch.cat([torch.arange(c.end - c.queries, c.end) for chunks in by_rank for c in chunks]).to(batch.input_ids.device)
    each = len(tokens) // context
    return Cut(tuple(by_rank[rank]), tokens[rank * each : (rank + 1) * each], torch.argsort(tokens))


def part(batch: MicroBatch, mine: Tensor) -> tuple[MicroBatch, Tensor]:
    """Return a rank's part of a micro-batch, and which of the micro-batch's targets its own tokens predict, int64."""
    local = torch.full((batch.input_ids.shape[1],), -1, device=mine.device)
    local[mine] = torch.arange(len(mine), device=mine.device)
    predictors = local.index_select(0, batch.predictors)
    kept = predictors >= 0
    answered = kept.index_select(0, batch.rows).nonzero()[:, 0]
    numbers = kept.cumsum(0) - 1
    found = replace(
        batch,
        input_ids=batch.input_ids[:, mine],
        positions=batch.positions[:, mine],
        layout=(),
        predictors=predictors[kept],
        rows=numbers.index_select(0, batch.rows.index_select(0, answered)),
        targets=batch.targets.index_select(0, answered),
    )
    return found, answered


def _lengths(batch: MicroBatch) -> list[int]:
    (block,) = batch.layout
    if not isinstance(block, Whole):
        raise TypeError("samples that share a prompt cannot be cut")
    return list(block.lengths)


def _chunks(lengths: Sequence[int], context: int, rank: int) -> list[tuple[Chunk, Chunk]]:
    found = []
    for begin, length in zip(accumulate(lengths, initial=0), lengths, strict=False):
        size = length // (2 * context)
        early, late = (Chunk(size, begin, begin + (n + 1) * size) for n in (rank, 2 * context - 1 - rank))
        found.append((early, late))
    return found

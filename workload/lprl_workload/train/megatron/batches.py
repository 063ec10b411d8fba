"""A rank's micro-batches, the same on every stage of its pipeline: tokens laid end to end, padded for sequence-parallel ranks.

Stages between the first and the last are given no sequences (train/mesh.py), yet every layer asks where a token stands and what it
attends to: they get the first stage's tokens, which is a few integers a token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from lprl_workload.episode import TrainSample
from lprl_workload.hf.packed_attention import whole
from lprl_workload.train.batch import IDLE, MicroBatch, collate
from lprl_workload.train.megatron.context import Cut, cut, padded, part

Parts = Sequence[Sequence[TrainSample]]


@dataclass(frozen=True, slots=True)
class Staged:
    """A micro-batch as a rank runs it."""

    asked: MicroBatch
    """All of it: what a loss is computed of."""
    mine: MicroBatch
    """The tokens of this context rank, and what they predict; where sequences are not cut, all of it."""
    answered: Tensor | None = None
    """int64: which of the targets of `asked` those of `mine` are; None for all."""
    cut: Cut | None = None


def micro_batches(parts: Parts, device: torch.device, multiple: int, count: int, context: tuple[int, int] = (1, 0)) -> list[Staged]:
    """Return the micro-batches of `parts`.

    Args:
        parts: samples by micro-batch; some may have none.
        device: where they go.
        multiple: tokens of each on a rank are padded to a multiple of it, with tokens that nobody attends to.
        count: micro-batches without samples are added up to a multiple of this many.
        context: ranks that sequences are cut over, and which of them this one is.

    """
    idle: list[list[TrainSample]] = [[] for _ in range(-len(parts) % count)]
    every = [collate(part or [IDLE], device, share=context[0] == 1) for part in [*parts, *idle]]
    if context[0] == 1:
        return [Staged(batch, batch) for batch in (_padded(one, multiple) for one in every)]
    return [_cut(padded(one, context[0], multiple), *context) for one in every]


def _cut(batch: MicroBatch, context: int, rank: int) -> Staged:
    found = cut(batch, context, rank)
    return Staged(batch, *part(batch, found.mine), found)


def _padded(batch: MicroBatch, multiple: int) -> MicroBatch:
    missing = -batch.input_ids.shape[1] % multiple
    if not missing:
        return batch
    rest = torch.zeros((1, missing), dtype=torch.int64, device=batch.input_ids.device)
    ids, positions = torch.cat([batch.input_ids, rest], dim=1), torch.cat([batch.positions, rest], dim=1)
    return replace(batch, input_ids=ids, positions=positions, layout=(*batch.layout, whole([1] * missing, rest.device)))


def tell(parts: Parts, from_first: Callable[[Tensor], Tensor], device: torch.device) -> Parts:
    """Return the first stage's samples (tokens, and which of them are drawn) on every stage.

    Args:
        parts: this rank's own; those of the first stage count.
        from_first: gives every stage what the first one has in a tensor of equal size.
        device: where that tensor lies.

    """
    samples = [sample for part in parts for sample in part]
    head = [len(parts), len(samples), *map(len, parts), *(len(s.ids) for s in samples)]
    words = np.concatenate([np.asarray(head, np.int64), *(s.ids for s in samples), *(s.mask for s in samples)])
    size = int(from_first(torch.tensor([len(words)], device=device)))
    sent = torch.zeros(size, dtype=torch.int64, device=device)
    if size == len(words):
        sent.copy_(torch.from_numpy(words.astype(np.int64)))
    return _told(from_first(sent).cpu().numpy())


def _told(words: np.ndarray) -> list[list[TrainSample]]:
    count, total = int(words[0]), int(words[1])
    sizes, lengths = words[2 : 2 + count].tolist(), words[2 + count : 2 + count + total].tolist()
    edges = np.cumsum([2 + count + total, *lengths, *lengths]).tolist()
    spans = [words[first:last] for first, last in pairwise(edges)]
    found = iter([_bare(ids, drawn) for ids, drawn in zip(spans[:total], spans[total:], strict=True)])
    return [[next(found) for _ in range(size)] for size in sizes]


def _bare(ids: np.ndarray, drawn: np.ndarray) -> TrainSample:
    nothing = np.zeros(int(drawn.sum()), np.float32)
    return TrainSample(ids.astype(np.int32), drawn.astype(np.bool_), nothing, nothing)

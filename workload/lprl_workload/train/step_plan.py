"""`schedule`: the sequences of a rollout batch -> optimizer steps -> data-parallel parts -> micro-batches (pure).

Worked example, six sequences, two data-parallel ranks, 8 tokens a micro-batch, four sequences an optimizer step:

    schedule([5, 3, 4, 2, 7, 1], TrainMesh(dp=2), TokenBudget(8, global_batch=4))
    step 0, sequences 0 to 3    rank 0: (0,) (3,)    rank 1: (2, 1)  needs one micro-batch, is split into (2,) (1,)
    step 1, sequences 4 and 5   rank 0: (4,)         rank 1: (5,)
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from lprl_api.wire.runconfig import RunConfig
from lprl_workload.train.mesh import TrainMesh

MicroBatch = tuple[int, ...]
"""Sequence numbers, longest first; empty where a rank only takes part."""


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """How much a micro-batch may hold, and what is balanced."""

    tokens: int
    """Tokens of a micro-batch on one rank; the `cp` ranks that share a sequence hold `cp` times that together."""
    global_batch: int | None = None
    """Sequences of an optimizer step; None: all of them are one step."""
    layout: Literal["padded", "packed"] = "padded"
    """What a micro-batch costs: padded, rows x longest row (a rectangle); packed, the sum of its lengths (rows end to end)."""
    balance: Literal["tokens", "attention", "order"] = "tokens"
    """What ranks get alike: tokens; attention work (length squared, what dominates long sequences); or, unbalanced, runs in order."""

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise ValueError(f"tokens: got {self.tokens}, needs at least 1")
        if self.global_batch is not None and self.global_batch < 1:
            raise ValueError(f"global_batch: got {self.global_batch}, needs at least 1")


def budget_of(run: RunConfig, global_batch: int | None = None) -> TokenBudget:
    """Return the limits of a run's passes; `global_batch`: sequences of an optimizer step, None for a pass over all."""
    return TokenBudget(run.trainer.max_tokens_per_gpu, global_batch, balance="tokens" if run.algorithm.balance_data else "order")


@dataclass(frozen=True, slots=True)
class OptimizerStep:
    """One optimizer step: the sequences [first, last) of the batch."""

    first: int
    last: int
    parts: tuple[tuple[MicroBatch, ...], ...]
    """By data index: the micro-batches, in the order they run."""


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What every rank does with a rollout batch."""

    mesh: TrainMesh
    steps: tuple[OptimizerStep, ...]

    def micro_batches(self, step: int, rank: int) -> tuple[MicroBatch, ...]:
        """Return what `rank` runs in optimizer step `step`: the part of its data index."""
        return self.steps[step].parts[self.mesh.coordinates(rank).data]


def schedule(lengths: ArrayLike, mesh: TrainMesh, budget: TokenBudget) -> StepPlan:
    """Return who runs which sequences when.

    Args:
        lengths: int [N], tokens of each sequence (prompt, world and response together).
        mesh: the trainer's ranks.
        budget: limits.

    Invariants:
        1. Every sequence is in exactly one micro-batch of one data index of one optimizer step.
        2. Steps are runs of `global_batch` consecutive sequences; only the last may be shorter. Nothing is dropped.
        3. Within a step all data indices have equally many micro-batches, a multiple of mesh.micro_batch_multiple: the smallest
           that is enough for the one that needs most.
        4. No micro-batch costs more than tokens x cp, unless it is one sequence (which cannot be split).
        5. Balanced, the loads (tokens, or lengths squared) of any two data indices differ by at most the largest single load.
           Unbalanced, data indices get runs of consecutive sequences whose counts differ by at most one, larger first.
        6. Within a micro-batch lengths descend, and so do the longest sequences of a data index' micro-batches: the first shows
           the peak memory. Empty ones come last.
        7. A data index has an empty micro-batch only when each of its sequences is alone already.
        8. Equal arguments give equal plans, and one data index without a pipeline group gets its micro-batches unsplit.

    Raises ValueError for a negative length.

    """
    sizes = np.asarray(lengths, dtype=np.int64)
    if sizes.ndim != 1 or (sizes < 0).any():
        raise ValueError(f"lengths: got shape {sizes.shape}, smallest {sizes.min(initial=0)}; needs [N], none below 0")
    size = budget.global_batch or max(1, len(sizes))
    starts = range(0, len(sizes), size)
    return StepPlan(mesh, tuple(_step(sizes.tolist(), first, min(first + size, len(sizes)), mesh, budget) for first in starts))


def _step(lengths: list[int], first: int, last: int, mesh: TrainMesh, budget: TokenBudget) -> OptimizerStep:
    dealt = _deal(lengths, first, last, mesh.dp, budget)
    pack = _rectangles if budget.layout == "padded" else _packs
    groups = [pack(part, lengths, budget.tokens * mesh.cp) for part in dealt]
    multiple = mesh.micro_batch_multiple
    count = -(-max(len(parts) for parts in groups) // multiple) * multiple
    return OptimizerStep(first, last, tuple(tuple(tuple(g) for g in _stretched(parts, lengths, count)) for parts in groups))


def _deal(lengths: list[int], first: int, last: int, ranks: int, budget: TokenBudget) -> list[list[int]]:
    """Return each data index' sequences, longest first, ties by number."""
    numbers = range(first, last)
    by_length = sorted(numbers, key=lambda n: (-lengths[n], n))
    if budget.balance == "order":
        base, extra = divmod(last - first, ranks)
        starts = [first + r * base + min(r, extra) for r in range(ranks + 1)]
        owner = {n: r for r in range(ranks) for n in range(starts[r], starts[r + 1])}
        return [[n for n in by_length if owner[n] == r] for r in range(ranks)] if ranks > 1 else [by_length]
    parts: list[list[int]] = [[] for _ in range(ranks)]
    # Longest first, to whoever has least: (load, sequences, data index).
    heap = [(0, 0, r) for r in range(ranks)]
    for n in by_length:
        load, count, rank = heap[0]
        parts[rank].append(n)
        heapq.heapreplace(heap, (load + (lengths[n] if budget.balance == "tokens" else lengths[n] ** 2), count + 1, rank))
    return parts


def _rectangles(numbers: Sequence[int], lengths: list[int], limit: int) -> list[list[int]]:
    """Group sequences, given longest first, so that rows x longest row stays within `limit`."""
    groups: list[list[int]] = []
    for n in numbers:
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= limit:
            groups[-1].append(n)
        else:
            groups.append([n])
    return groups


def _packs(numbers: Sequence[int], lengths: list[int], limit: int) -> list[list[int]]:
    """Group sequences, given longest first, into the first group with room for their tokens."""
    groups: list[list[int]] = []
    room: list[int] = []
    for n in numbers:
        place = next((p for p, left in enumerate(room) if lengths[n] <= left), None)
        if place is None:
            groups.append([n])
            room.append(limit - lengths[n])
        else:
            groups[place].append(n)
            room[place] -= lengths[n]
    return groups


def _stretched(groups: list[list[int]], lengths: list[int], count: int) -> list[list[int]]:
    """Return `count` groups: the one with most tokens is cut in two until there are enough, then empty ones follow."""
    found = [list(group) for group in groups]
    while len(found) < count:
        shared = [place for place, group in enumerate(found) if len(group) > 1]
        if not shared:
            found.append([])
            continue
        largest = max(shared, key=lambda place: (sum(lengths[n] for n in found[place]), -place))
        group = found[largest]
        half = (len(group) + 1) // 2
        found[largest : largest + 1] = [group[:half], group[half:]]
    found.sort(key=lambda group: -lengths[group[0]] if group else 1)
    return found

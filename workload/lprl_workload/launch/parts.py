"""What a group sends a trainer rank of a batch, and how answers come back into the batch's order (pure: references are only passed on)."""

from collections.abc import Sequence
from typing import Any, TypeVar

from lprl_workload.episode import BatchRef
from lprl_workload.rl.groups import Update
from lprl_workload.train.rank import Share, TrainWork

T = TypeVar("T")


def work_of(update: Update, step: int, share: Share) -> TrainWork:
    """Return what a rank is told of optimizer step `step`; denominators are those of the whole step."""
    whole, batch = update.plan.steps[step], update.batch
    return TrainWork(
        sizes=share.sizes,
        values=tuple(update.values[n] for n in share.numbers),
        rule=update.rule,
        has_old=batch.old is not None,
        has_reference=batch.reference is not None,
        global_samples=whole.last - whole.first,
        global_tokens=int(batch.drawn[whole.first : whole.last].sum()),
        steps=update.steps,
    )


def arrays_of(batch: BatchRef, numbers: Sequence[int]) -> list[Any]:
    """Return the references to what a rank needs of the sequences `numbers`: episodes, then old and reference log-probabilities."""
    kinds = [[episode.ref for episode in batch.episodes], batch.old, batch.reference]
    return [rows[n] for rows in kinds if rows is not None for n in numbers]


def split(arrays: Sequence[T], count: int, work: TrainWork) -> tuple[Sequence[T], Sequence[T], Sequence[T]]:
    """Undo `arrays_of` on the rank: (episodes, old, reference), empty where there is none."""
    old = count * (1 + work.has_old)
    return arrays[:count], arrays[count:old], arrays[old:]


def in_order(numbers: Sequence[int], answers: Sequence[T]) -> list[T]:
    """Return answers, given in the order of `numbers`, by number.

    Raises ValueError unless numbers are 0 to N - 1, in any order, and each has an answer: a row too few would shift all behind it.
    """
    if sorted(numbers) != list(range(len(numbers))) or len(answers) != len(numbers):
        raise ValueError(f"answers: got {len(answers)} to {len(numbers)} of {len(set(numbers))} sequences; needs one to each")
    by_number = dict(zip(numbers, answers, strict=True))
    return [by_number[n] for n in range(len(by_number))]

"""How a group deals requests to engines and samples to ranks, and puts the answers back in order (pure)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

from lprl_workload.data import TrainSample
from lprl_workload.train.pack import partition

T = TypeVar("T")


def spans(count: int, parts: int) -> list[tuple[int, int]]:
    """Split `count` requests into one half-open range per engine; they tile [0, count), sizes differ by at most one."""
    base, extra = divmod(count, parts)
    starts = [part * base + min(part, extra) for part in range(parts + 1)]
    return list(pairwise(starts))


def deal(samples: Sequence[TrainSample], ranks: int, balance: bool) -> list[list[int]]:
    """Return each rank's sample numbers, balanced by tokens or in runs."""
    return partition([len(s.prompt_ids) + len(s.response_ids) for s in samples], ranks, balance)


def collect(parts: Sequence[Sequence[int]], answers: Sequence[Sequence[T]], count: int) -> list[T]:
    """Undo `deal`: answers[rank][i] belongs to sample parts[rank][i]; every one of `count` samples has one answer."""
    ordered: dict[int, T] = {}
    for numbers, values in zip(parts, answers, strict=True):
        ordered.update(zip(numbers, values, strict=True))
    return [ordered[number] for number in range(count)]


def response_tokens(samples: Sequence[TrainSample]) -> int:
    """Return the response tokens of a batch, a loss denominator."""
    return sum(len(sample.response_ids) for sample in samples)

"""How a group deals requests to engines and samples to ranks, and puts the answers back in order (pure)."""

from collections.abc import Sequence
from itertools import count, pairwise
from typing import TypeVar

from lprl_workload.data import TrainSample
from lprl_workload.launch.hosts import Place
from lprl_workload.train.pack import partition

T = TypeVar("T")


def spans(requests: int, parts: int) -> list[tuple[int, int]]:
    """Split `requests` requests into one half-open range per engine; they tile [0, requests), sizes differ by at most one."""
    base, extra = divmod(requests, parts)
    starts = [part * base + min(part, extra) for part in range(parts + 1)]
    return list(pairwise(starts))


def turns(places: Sequence[Place | None], kept: Sequence[int | None]) -> list[int | None]:
    """Number the engines of each node: who has a turn keeps it, the others take the node's lowest free ones, in order."""
    found = list(kept)
    for number, place in enumerate(places):
        if place is not None and found[number] is None:
            taken = {found[n] for n, other in enumerate(places) if other is not None and other.node == place.node}
            found[number] = next(turn for turn in count() if turn not in taken)
    return found


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

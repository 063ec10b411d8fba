"""How a group deals work to ranks and devices to engines (pure)."""

from collections.abc import Sequence
from itertools import count, pairwise

from lprl_workload.launch.hosts import Place


def spans(requests: int, parts: int) -> list[tuple[int, int]]:
    """Split `requests` requests into one half-open range per engine; they tile [0, requests), sizes differ by at most one."""
    base, extra = divmod(requests, parts)
    starts = [part * base + min(part, extra) for part in range(parts + 1)]
    return list(pairwise(starts))


def turns(places: Sequence[Place | None], before: Sequence[Place | None], kept: Sequence[int | None]) -> list[int | None]:
    """Number the engines of each node: who is where it was `before` keeps its turn, the others take the node's lowest free, in order."""
    stays = [now is not None and was is not None and now.node == was.node for now, was in zip(places, before, strict=True)]
    found = [turn if stay else None for turn, stay in zip(kept, stays, strict=True)]
    for number, place in enumerate(places):
        if place is not None and found[number] is None:
            taken = {found[n] for n, other in enumerate(places) if other is not None and other.node == place.node}
            found[number] = next(turn for turn in count() if turn not in taken)
    return found

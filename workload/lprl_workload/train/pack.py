"""Samples -> ranks -> micro-batches (pure).

Micro-batches are padded rectangles, so their cost in tokens is rows x longest row; samples of like length go together.
"""

from collections.abc import Sequence


def partition(lengths: Sequence[int], ranks: int, balance: bool = True) -> list[list[int]]:
    """Deal samples to ranks; returns each rank's sample numbers.

    Invariants: every sample goes to exactly one rank; numbers ascend within a rank; the same input gives the same output.
    With `balance`, token sums of any two ranks differ by at most the longest sample (greedy, longest first, to the rank with
    the fewest tokens). Without, ranks get runs of consecutive samples whose counts differ by at most one, larger first.
    """
    if ranks < 1:
        raise ValueError(f"ranks: got {ranks}, needs at least 1")
    if not balance:
        base, extra = divmod(len(lengths), ranks)
        starts = [r * base + min(r, extra) for r in range(ranks + 1)]
        return [list(range(starts[r], starts[r + 1])) for r in range(ranks)]
    parts: list[list[int]] = [[] for _ in range(ranks)]
    tokens = [0] * ranks
    for number in sorted(range(len(lengths)), key=lambda n: (-lengths[n], n)):
        rank = min(range(ranks), key=lambda r: (tokens[r], len(parts[r]), r))
        parts[rank].append(number)
        tokens[rank] += lengths[number]
    return [sorted(part) for part in parts]


def micro_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Group samples so that rows x longest row stays within `max_tokens`; returns sample numbers, longest group first.

    Invariants: every sample is in exactly one group; no group is empty; only a group of one sample may exceed `max_tokens`
    (a sample cannot be split); within a group lengths descend, and no sample is longer than one of an earlier group, so the
    first group shows the peak memory.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens: got {max_tokens}, needs at least 1")
    groups: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda n: (-lengths[n], n)):
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= max_tokens:
            groups[-1].append(number)
        else:
            groups.append([number])
    return groups

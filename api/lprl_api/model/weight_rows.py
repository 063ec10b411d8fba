"""Weights as text: one row a weight in a shape's layout, and which layers a part of it is in.

A row is `module kind sharding rows cols [copies]`: `self_attn.q_proj attention column 8192 2048`; experts are one row with `*` and copies.
"""

from collections.abc import Iterable
from functools import cache

from lprl_api.model.weight import KINDS, SHARDINGS, Weight


def row_of(weight: Weight) -> str:
    """Return the row of a weight."""
    copies = f" {weight.copies}" if weight.copies > 1 else ""
    return f"{weight.module} {weight.kind} {weight.sharding} {weight.rows} {weight.cols}{copies}"


@cache
def weight_of(row: str) -> Weight:
    """Return the weight of a row. Raises ValueError for text that is none."""
    module, kind, sharding, rows, cols, *copies = row.split()
    return Weight(module, KINDS[kind], int(rows), int(cols), SHARDINGS[sharding], int(copies[0]) if copies else 1)


def text_of(layers: Iterable[int]) -> str:
    """Return layers as text: `0-2`, `3-39:4`, single ones by commas."""
    left, found = sorted(set(layers)), []
    while left:
        first = left[0]
        steps = {other - first for other in left[1:]}
        runs = [_run(first, step, set(left)) for step in (1, *sorted(steps)[:8])] if steps else [[first]]
        best = max(runs, key=len)
        found.append(_text(best) if len(best) > 2 else str(first))
        left = [layer for layer in left if layer not in (best if len(best) > 2 else (first,))]
    return ",".join(found)


def _run(first: int, step: int, among: set[int]) -> list[int]:
    run = [first]
    while run[-1] + step in among:
        run.append(run[-1] + step)
    return run


def _text(run: list[int]) -> str:
    step = run[1] - run[0]
    return f"{run[0]}-{run[-1]}" + (f":{step}" if step > 1 else "")


@cache
def layers_of(text: str) -> frozenset[int]:
    """Return the layers a text names. Raises ValueError for text that names none."""
    found: set[int] = set()
    for piece in text.split(","):
        bounds, _, step = piece.partition(":")
        first, _, last = bounds.partition("-")
        found |= set(range(int(first), int(last or first) + 1, int(step or 1)))
    return frozenset(found)

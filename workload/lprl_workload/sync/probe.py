"""A fixed prompt every engine scores before it is admitted to serve: what checksums cannot see, such as weights put in the wrong place."""

import math
from collections.abc import Sequence

from lprl_api.model.formats import WeightFormat

TOKENS = 24
TRAINER_LIMIT = 1.0
"""Largest mean difference to the trainer, nats a token. Formats differ by up to about 0.2, INT4 and anything else on a real model by
0.9 to 1.5; other weights by several."""
ENGINES_LIMIT = 0.05
"""Largest mean difference between two engines with equal weights, nats a token: other kernels round differently."""


def probe_ids(vocab: int) -> tuple[int, ...]:
    """Return the prompt: fixed, without a token twice in a row, all over the vocabulary."""
    return tuple((n * n * 7919 + n * 104729 + 11) % vocab for n in range(TOKENS))


def comparable(served: WeightFormat, trained: WeightFormat) -> bool:
    """Return whether trainer and engines are near enough for the probe to judge: not where only one of them computes with INT4 weights."""
    return served.coarse == trained.coarse


def judge(engines: Sequence[Sequence[float]], trainer: Sequence[float] | None) -> str:
    """Return what is wrong with the engines' log-probabilities of the probe, in words; empty when nothing is.

    `trainer`: what the trainer finds for it; None when its weights are others by now, or not comparable.
    """
    for number, found in enumerate(engines):
        if not all(math.isfinite(value) for value in found):
            return f"engine {number} finds log-probabilities that are not finite"
        for other, limit, values in (("engine 0", ENGINES_LIMIT, engines[0]), ("the trainer", TRAINER_LIMIT, trainer)):
            if values is not None and (apart := _apart(found, values)) > limit:
                return f"engine {number} and {other} differ by {apart:.3g} nats a token on the probe; at most {limit} is rounding"
    return ""


def _apart(one: Sequence[float], two: Sequence[float]) -> float:
    return sum(abs(a - b) for a, b in zip(one, two, strict=True)) / max(1, len(one))

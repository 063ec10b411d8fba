"""A fixed prompt every engine scores before it is admitted to serve: what checksums cannot see, such as weights put in the wrong place."""

import math
from collections.abc import Sequence

from lprl_api.model.formats import WeightFormat

TOKENS = 24
TRAINER_LIMIT, SAME_WEIGHTS_LIMIT = 1.0, 0.5
"""Largest mean difference to the trainer, nats a token: where FP8 rounds weights or activations, and where both compute in BF16 with equal
weights. Found on SmolLM2-135M for these tokens, whose log-probabilities are 15 below zero: BF16 against float32 0.07 (INT4 weights on
both sides: 0.06), FP8 against BF16 by block 0.35, by channel 0.47, weights alone 0.26; INT4 against BF16 1.4. Uniform noise is 4 away."""
ENGINES_LIMIT = 0.05
"""Largest mean difference between two engines with equal weights, nats a token: other kernels round differently."""


def probe_ids(vocab: int) -> tuple[int, ...]:
    """Return the prompt: fixed, without a token twice in a row, all over the vocabulary."""
    return tuple((n * n * 7919 + n * 104729 + 11) % vocab for n in range(TOKENS))


def comparable(served: WeightFormat, trained: WeightFormat) -> bool:
    """Return whether trainer and engines are near enough for the probe to judge: not where only one of them computes with INT4 weights."""
    return served.coarse == trained.coarse


def trainer_limit(served: WeightFormat, trained: WeightFormat) -> float:
    """Return how far engines may be from the trainer in the mean; `trained`: what its weights are rounded to."""
    rounds = any(fmt.kind.startswith("fp8") for fmt in (served, trained))
    return TRAINER_LIMIT if rounds else SAME_WEIGHTS_LIMIT


def judge(engines: Sequence[Sequence[float]], trainer: Sequence[float] | None, limit: float = TRAINER_LIMIT) -> str:
    """Return what is wrong with the engines' log-probabilities of the probe, in words; empty when nothing is.

    `trainer`: what the trainer finds for it; None when its weights are others by now, or not comparable. `limit`: see `trainer_limit`.
    """
    for number, found in enumerate(engines):
        if not all(math.isfinite(value) for value in found):
            return f"engine {number} finds log-probabilities that are not finite"
        for other, most, values in (("engine 0", ENGINES_LIMIT, engines[0]), ("the trainer", limit, trainer)):
            if values is not None and (apart := _apart(found, values)) > most:
                return f"engine {number} and {other} differ by {apart:.3g} nats a token on the probe; at most {most} is rounding"
    return ""


def _apart(one: Sequence[float], two: Sequence[float]) -> float:
    return sum(abs(a - b) for a, b in zip(one, two, strict=True)) / max(1, len(one))

"""The training/rollout mismatch of a batch, and pass@k: pure arithmetic over Python floats."""

import math
from collections.abc import Iterable, Sequence
from math import comb

from lprl_workload.data import Metrics

RATIO_LIMIT = 20.0
"""Log-ratios are clamped to +-this before exp, so that one broken token gives a large number, not infinity."""


def mismatch(pairs: Iterable[tuple[Sequence[float], Sequence[float]]]) -> Metrics:
    """Return `logprob_diff` (mean |trainer - rollout|) and `k3` (mean r - 1 - log r, r = p_trainer / p_rollout) over all tokens.

    Args:
        pairs: per sample (trainer log-probabilities [R], rollout log-probabilities [R]).

    """
    differences = [t - r for trainer, rollout in pairs for t, r in zip(trainer, rollout, strict=True)]
    if not differences:
        return {"logprob_diff": 0.0, "k3": 0.0}
    clamped = (max(-RATIO_LIMIT, min(RATIO_LIMIT, d)) for d in differences)
    return {
        "logprob_diff": math.fsum(abs(d) for d in differences) / len(differences),
        "k3": math.fsum(math.expm1(d) - d for d in clamped) / len(differences),
    }


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Return the unbiased estimate of pass@k from `correct` of `samples` responses: 1 - C(n-c, k) / C(n, k).

    Raises ValueError when k exceeds the samples.
    """
    if k > samples:
        raise ValueError(f"pass@{k} needs {k} samples a prompt, there are {samples}")
    return 1.0 - comb(samples - correct, k) / comb(samples, k)

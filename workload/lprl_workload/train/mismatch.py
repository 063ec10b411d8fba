"""The training/rollout mismatch of samples, as sums that add up over samples and ranks (pure)."""

from dataclasses import dataclass

import numpy as np

from lprl_workload.data import Metrics
from lprl_workload.episode import Float32
from lprl_workload.train.kl import MAX_LOG_RATIO


@dataclass(frozen=True, slots=True)
class MismatchSums:
    """Of some tokens: how many, sum of |trainer - rollout|, sum of k3 = r - 1 - log r with r = p_trainer / p_rollout. They add up."""

    tokens: int = 0
    difference: float = 0.0
    k3: float = 0.0

    def __add__(self, other: "MismatchSums") -> "MismatchSums":
        return MismatchSums(self.tokens + other.tokens, self.difference + other.difference, self.k3 + other.k3)

    def means(self) -> Metrics:
        """Return `logprob_diff` and `k3` per token; 0 of nothing."""
        return {"logprob_diff": self.difference / max(1, self.tokens), "k3": self.k3 / max(1, self.tokens)}


def mismatch(trainer: Float32, rollout: Float32) -> MismatchSums:
    """Return the sums of one sample, from log-probabilities [R] of both sides; a value that is no number stays one."""
    d = trainer.astype(np.float64) - rollout.astype(np.float64)
    clamped = np.where(np.isfinite(d), np.clip(d, -MAX_LOG_RATIO, MAX_LOG_RATIO), np.nan)
    return MismatchSums(len(d), float(np.abs(d).sum()), float((np.expm1(clamped) - clamped).sum()))

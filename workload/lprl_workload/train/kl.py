"""KL estimators between two policies on sampled tokens (pure). d = log-prob of the policy - log-prob of the reference."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Estimator = Literal["k1", "k2", "k3", "low-var-kl"]
LOW_VAR_BOUND = 10.0
MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped to +-20 before exp: e^20 is far beyond every clip, and products of it stay finite."""


def kl_estimate(logp: Tensor, reference: Tensor, estimator: Estimator) -> Tensor:
    """Return the estimate per token: k1 = d, k2 = d^2 / 2, k3 = e^-d - 1 + d, low-var-kl = k3 clamped to [-10, 10]."""
    d = logp - reference
    match estimator:
        case "k1":
            return d
        case "k2":
            return d.square() / 2
    k3 = torch.expm1((-d).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)) + d
    return k3.clamp(-LOW_VAR_BOUND, LOW_VAR_BOUND) if estimator == "low-var-kl" else k3


def kl_per_token(policy: Sequence[Sequence[float]], reference: Sequence[Sequence[float]], estimator: Estimator) -> list[tuple[float, ...]]:
    """Return estimates for plain lists, one row per sample (the driver's KL in the reward)."""

    def wide(row: Sequence[float]) -> Tensor:
        return torch.tensor(row, dtype=torch.float64)

    rows = zip(policy, reference, strict=True)
    return [tuple(kl_estimate(wide(p), wide(r), estimator).tolist()) for p, r in rows]

"""KL estimators between two policies on sampled tokens (pure). d = log-prob of the policy - log-prob of the reference."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lprl_workload.episode import Float32, Float64

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


def kl_per_token(policy: Float32, reference: Float32, estimator: Estimator) -> Float64:
    """Return the estimates of one sample, float64 [R] (KL in the reward)."""
    p, r = (torch.from_numpy(row.astype(np.float64)) for row in (policy, reference))
    found: Float64 = kl_estimate(p, r, estimator).numpy()
    return found

"""Importance correction of the gap between the policy that sampled (serving weights) and the trainer's own (pure).

Symbols, all [B, R] (samples, response tokens): o trainer log-prob before the update, f rollout log-prob, m mask (1 on response
tokens). The token ratio is exp(o - f); log-ratios are clamped to +-20. Weights carry no gradient.

    tis      w = clamp(ratio, low, high)
    icepop   w = ratio inside [low, high], 0 outside
    mis      ratio by level: token; sequence exp(sum m (o - f)); geometric exp(sum m (o - f) / sum m); then by mode:
             truncate min(ratio, high), clip clamp(ratio, low, high), mask ratio inside [low, high], 0 outside.
             A sequence with a token ratio below vetoThreshold gets weight 0.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lprl_api.spec.algorithm import Correction
from lprl_workload.train.kl import MAX_LOG_RATIO


@dataclass(frozen=True, slots=True)
class Weights:
    """Factors of the policy loss and what they changed, [B, R]."""

    weight: Tensor
    changed: Tensor
    """1 where the weight is not the plain ratio (truncated, zeroed or vetoed), 0 on padding."""


def correction_weights(correction: Correction, old: Tensor, rollout: Tensor, mask: Tensor) -> Weights:
    """Return the factor of every token's policy loss; ones for type none."""
    if correction.type == "none":
        return Weights(torch.ones_like(old), torch.zeros_like(old))
    log_ratio = (old - rollout).detach() * mask
    token_ratio = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    low, high = correction.low, correction.high
    if correction.type == "tis":
        ratio, weight = token_ratio, token_ratio.clamp(low, high)
    elif correction.type == "icepop":
        ratio, weight = token_ratio, inside(token_ratio, low, high)
    else:
        ratio = _level_ratio(correction, log_ratio, token_ratio, mask)
        match correction.mode:
            case "truncate":
                weight = ratio.clamp(max=high)
            case "clip":
                weight = ratio.clamp(low, high)
            case "mask":
                weight = inside(ratio, low, high)
        if correction.veto_threshold > 0:
            vetoed = ((token_ratio < correction.veto_threshold) & (mask > 0)).any(dim=1, keepdim=True)
            weight = torch.where(vetoed, torch.zeros_like(weight), weight)
    return Weights(weight, (weight != ratio).to(mask.dtype) * mask)


def inside(ratio: Tensor, low: float, high: float) -> Tensor:
    """Return the ratio where low <= ratio <= high, 0 elsewhere."""
    return torch.where((ratio >= low) & (ratio <= high), ratio, torch.zeros_like(ratio))


def _level_ratio(correction: Correction, log_ratio: Tensor, token_ratio: Tensor, mask: Tensor) -> Tensor:
    if correction.level == "token":
        return token_ratio
    total = log_ratio.sum(dim=1, keepdim=True)
    if correction.level == "geometric":
        total = total / mask.sum(dim=1, keepdim=True).clamp(min=1)
    return total.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp().expand_as(log_ratio)

"""What a step reports beside its loss: sums over tokens that add up over micro-batches and ranks, then means (pure)."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from lprl_workload.data import Metrics
from lprl_workload.train.kl import MAX_LOG_RATIO
from lprl_workload.train.loss import LossTerms, TokenBatch

TOKEN_SUMS = (
    "pg_loss",
    "entropy",
    "kl",
    "clip_fraction",
    "logprob_diff",
    "k3",
    "tis_clip_fraction",
    "tis_weight",
    "policy_kl",
    "nll_train",
    "nll_rollout",
)
"""Per-token quantities summed over a global batch; policy_kl is mean(o - l), the step's own drift."""


def mismatch_k3(old: Tensor, rollout: Tensor) -> Tensor:
    """Return the k3 estimate of KL(rollout || trainer) per token: e^d - 1 - d with d = o - f clamped to +-20.

    One broken token gives a large number; one that is none (NaN, infinite) is not clamped away, and neither is the mean.
    """
    d = old - rollout
    d = torch.where(d.isfinite(), d.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO), d)
    return torch.expm1(d) - d


def token_sums(batch: TokenBatch, terms: LossTerms) -> Tensor:
    """Return the sums over the micro-batch's tokens, in the order of TOKEN_SUMS, float64 [len(TOKEN_SUMS)]."""
    logp, old, mask = batch.logp.detach(), batch.old.detach(), batch.mask
    zero = torch.zeros_like(mask)
    rows = [
        terms.pg,
        batch.entropy.detach(),
        zero if terms.kl is None else terms.kl,
        terms.clipped,
        (old - batch.rollout).abs(),
        mismatch_k3(old, batch.rollout),
        terms.weights.changed,
        terms.weights.weight,
        old - logp,
        -old,
        -batch.rollout,
    ]
    return (torch.stack(rows) * mask).double().sum(dim=(1, 2))


def largest_difference(batch: TokenBatch) -> Tensor:
    """Return max |o - f| over the micro-batch's tokens, float64 scalar."""
    return ((batch.old.detach() - batch.rollout).abs() * batch.mask).amax().double()


def means(sums: Mapping[str, float], tokens: int) -> Metrics:
    """Return token means of global sums, and the perplexities that follow; pg_loss is the token mean of the policy term."""
    metrics = {name: value / max(1, tokens) for name, value in sums.items()}
    train, rollout = metrics.pop("nll_train"), metrics.pop("nll_rollout")
    metrics["ppl_train"] = math.exp(min(train, MAX_LOG_RATIO))
    metrics["ppl_rollout"] = math.exp(min(rollout, MAX_LOG_RATIO))
    metrics["ppl_ratio"] = math.exp(max(-MAX_LOG_RATIO, min(train - rollout, MAX_LOG_RATIO)))
    return metrics

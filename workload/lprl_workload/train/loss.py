"""The policy loss of one micro-batch, as this rank's share of the global batch's loss (pure). Formulas: docs/numerics.md.

Symbols, [B, R] each (samples, response tokens, zero-padded): l current log-prob, o log-prob before the update (l detached when
there is one update per rollout), f rollout log-prob, A advantage, m mask, w correction weight.

    ratio     grpo family: exp(l - o); gspo: exp(sum m (l - o) / sum m), one for the sequence
    pg        max(-ratio A, -clip(ratio, 1 - low, 1 + high) A); dual clip c: min(that, -c A) where A < 0
              cispo: -clip(ratio).detach() A l
    token     w * pg - entropyCoefficient * H + klCoefficient * KL(l, reference)    (KL here when its placement is loss)
    total     sample-mean: sum over samples of (sum m token / sum m) / global samples
              token-mean:  sum m token / global tokens
              constant:    sum m token / (most tokens an episode can draw * global samples)

Denominators are global, so the sum over micro-batches and ranks is the loss, and its gradient needs a plain sum.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lprl_api.derived.effective import loss_aggregation
from lprl_api.spec.algorithm import Algorithm, Correction
from lprl_workload.train.correction import Weights, correction_weights
from lprl_workload.train.kl import MAX_LOG_RATIO, kl_estimate


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Per-token values of a micro-batch, [B, R], float32, 0 on padding."""

    logp: Tensor
    old: Tensor
    rollout: Tensor
    advantage: Tensor
    mask: Tensor
    entropy: Tensor
    reference: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Denominators:
    """What sums are divided by, over all ranks and micro-batches."""

    samples: int
    tokens: int
    most_drawn: int
    """Tokens that the policy can draw in one episode."""


@dataclass(frozen=True, slots=True)
class LossTerms:
    """The loss and its parts, per token unless said otherwise."""

    loss: Tensor
    """Scalar with gradient: this micro-batch's share of the global loss."""
    pg: Tensor
    """Corrected policy-gradient term."""
    kl: Tensor | None
    clipped: Tensor
    """1 where the clip decided the token's term."""
    weights: Weights


def compute_loss(batch: TokenBatch, algorithm: Algorithm, correction: Correction, denominators: Denominators) -> LossTerms:
    """Return the loss of a micro-batch; `correction` replaces algorithm.correction when the stability guard asks for it."""
    ratio = importance_ratio(batch, sequence=algorithm.name == "gspo")
    pg, clipped = policy_terms(batch, algorithm, ratio)
    weights = correction_weights(correction, batch.old, batch.rollout, batch.mask)
    pg = pg * weights.weight
    token = pg
    if algorithm.entropy_coefficient:
        token = token - algorithm.entropy_coefficient * batch.entropy
    kl = None
    if batch.reference is not None:
        kl = kl_estimate(batch.logp, batch.reference, algorithm.kl.estimator)
        if algorithm.kl.placement == "loss" and algorithm.kl.coefficient:
            token = token + algorithm.kl.coefficient * kl
    loss = aggregate(token, batch.mask, loss_aggregation(algorithm), denominators)
    return LossTerms(loss, pg.detach(), None if kl is None else kl.detach(), clipped, weights)


def importance_ratio(batch: TokenBatch, sequence: bool) -> Tensor:
    """Return exp(l - o) per token, or its geometric mean over the sequence on every token."""
    log_ratio = (batch.logp - batch.old) * batch.mask
    if sequence:
        log_ratio = log_ratio.sum(dim=1, keepdim=True) / batch.mask.sum(dim=1, keepdim=True).clamp(min=1)
        log_ratio = log_ratio.expand_as(batch.mask)
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def policy_terms(batch: TokenBatch, algorithm: Algorithm, ratio: Tensor) -> tuple[Tensor, Tensor]:
    """Return (policy-gradient term, 1 where clipping decided it) per token."""
    a = batch.advantage
    bounded = ratio.clamp(1 - algorithm.clip.low, 1 + algorithm.clip.high)
    if algorithm.name == "cispo":
        return -bounded.detach() * a * batch.logp, (bounded != ratio).float() * batch.mask
    plain, limited = -ratio * a, -bounded * a
    pg = torch.maximum(plain, limited)
    clipped = limited > plain
    if algorithm.clip.dual is not None:
        ceiling = -algorithm.clip.dual * a
        over = (a < 0) & (ceiling < pg)
        pg = torch.where(over, ceiling, pg)
        clipped = clipped | over
    return pg, clipped.float() * batch.mask


def aggregate(token: Tensor, mask: Tensor, aggregation: str, denominators: Denominators) -> Tensor:
    """Reduce [B, R] to the micro-batch's share of the global loss; see the module's formulas."""
    sums = (token * mask).sum(dim=1)
    match aggregation:
        case "sample-mean":
            return (sums / mask.sum(dim=1).clamp(min=1)).sum() / max(1, denominators.samples)
        case "token-mean":
            return sums.sum() / max(1, denominators.tokens)
        case _:
            return sums.sum() / max(1, denominators.most_drawn * denominators.samples)

"""The loss of one micro-batch from its log-probabilities: what every trainer does between its forward and its backward pass."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lprl_api.spec.algorithm import Algorithm, Correction
from lprl_workload.episode import Float32, TrainSample
from lprl_workload.train.batch import MicroBatch
from lprl_workload.train.loss import Denominators, LossTerms, TokenBatch, compute_loss


def part_loss(
    samples: Sequence[TrainSample],
    batch: MicroBatch,
    found: tuple[Tensor, Tensor],
    algorithm: Algorithm,
    correction: Correction,
    denominators: Denominators,
) -> tuple[LossTerms, TokenBatch]:
    """Return the loss of a micro-batch and the values it is made of.

    Args:
        samples: of the micro-batch.
        batch: their tokens.
        found: (log-probabilities [T], entropies [T]) of the batch's targets.
        algorithm: of the run.
        correction: in place of the algorithm's own.
        denominators: of the global batch.

    """
    logp, entropy = (batch.spread(values) for values in found)
    old, reference = (_field(batch, rows) for rows in ([s.old_logprobs for s in samples], [s.ref_logprobs for s in samples]))
    tokens = TokenBatch(
        logp=logp,
        old=logp.detach() if old is None else old,
        rollout=batch.field([s.rollout_logprobs for s in samples]),
        advantage=batch.field([s.advantage for s in samples]),
        mask=batch.mask(),
        entropy=entropy,
        reference=reference,
    )
    return compute_loss(tokens, algorithm, correction, denominators), tokens


def _field(batch: MicroBatch, rows: Sequence[Float32 | None]) -> torch.Tensor | None:
    """Return float32 [B, R] of values that every sample has, else None."""
    found = [row for row in rows if row is not None]
    return batch.field(found) if len(found) == len(rows) else None

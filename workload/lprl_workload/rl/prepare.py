"""Scored samples -> what the loss needs: reference and old log-probabilities where they matter, advantages, global batches."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lprl_api.derived.effective import reads_reference
from lprl_api.spec.algorithm import Algorithm
from lprl_workload.data import Metrics, Sample, TrainSample
from lprl_workload.metrics.mismatch import mismatch
from lprl_workload.rl.groups import TokenValues, TrainGroup
from lprl_workload.train.advantage import advantages
from lprl_workload.train.kl import kl_per_token


@dataclass(frozen=True, slots=True)
class Prepared:
    """The optimizer steps of one rollout."""

    batches: tuple[tuple[TrainSample, ...], ...]
    """Global batches, in order."""
    mismatch: Metrics
    """logprob_diff and k3 of the whole rollout, when the trainer's log-probabilities were needed anyway; else empty."""


def as_train_sample(sample: Sample) -> TrainSample:
    """Return the tokens of a sample, with zero advantages."""
    return TrainSample(sample.prompt_ids, sample.response_ids, sample.rollout_logprobs, (0.0,) * len(sample.response_ids))


def measure(samples: Sequence[Sample], trainer: TrainGroup, temperature: float) -> tuple[list[TokenValues], Metrics]:
    """Return the trainer's log-probabilities of the samples and their mismatch with the rollout's."""
    rows = trainer.logprobs([as_train_sample(sample) for sample in samples], temperature)
    return rows, mismatch(zip(rows, (sample.rollout_logprobs for sample in samples), strict=True))


def prepare(samples: Sequence[Sample], algorithm: Algorithm, trainer: TrainGroup, temperature: float) -> Prepared:
    """Return the global batches of a rollout.

    The reference is consulted when KL has a coefficient or is measured; the trainer's own log-probabilities are when several
    optimizer steps share the rollout (they are then the fixed `old` ones) or KL is part of the reward.
    """
    size = algorithm.global_batch_size or len(samples)
    bare = [as_train_sample(sample) for sample in samples]
    in_reward = algorithm.kl.placement == "reward" and algorithm.kl.coefficient > 0
    reference: Sequence[TokenValues | None] = [None] * len(bare)
    old: Sequence[TokenValues | None] = [None] * len(bare)
    found: Metrics = {}
    kl: list[TokenValues] | None = None
    if reads_reference(algorithm.kl):
        reference = known = trainer.reference_logprobs(bare, temperature)
    if size < len(bare) or in_reward:
        old, found = measure(samples, trainer, temperature)
        if in_reward:
            kl = kl_per_token(old, known, algorithm.kl.estimator)
    values = advantages(samples, algorithm, kl)
    ready = [
        replace(sample, advantage=value, old_logprobs=o, ref_logprobs=r)
        for sample, value, o, r in zip(bare, values, old, reference, strict=True)
    ]
    return Prepared(tuple(tuple(ready[first : first + size]) for first in range(0, len(ready), size)), found)

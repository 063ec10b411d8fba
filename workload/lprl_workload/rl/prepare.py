"""Scored episodes -> what the optimizer steps need: reference and old log-probabilities where they matter, advantages, the plan."""

from collections.abc import Sequence

from lprl_api.derived.effective import global_batch_size, reads_reference, samples_per_step
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.data import Metrics
from lprl_workload.episode import BatchRef
from lprl_workload.rl.groups import TrainGroup, Update
from lprl_workload.train.advantage import Moments, Rule, signals
from lprl_workload.train.mesh import mesh_of
from lprl_workload.train.mismatch import MismatchSums
from lprl_workload.train.step_plan import budget_of, schedule


def measure(batch: BatchRef, trainer: TrainGroup, temperature: float) -> tuple[BatchRef, Metrics]:
    """Return the batch with references to the trainer's log-probabilities, and their mismatch with the rollout's."""
    rows, sums = trainer.logprobs(batch, "policy", temperature)
    return BatchRef(batch.episodes, rows, batch.reference), sum(sums, MismatchSums()).means()


def prepare(batch: BatchRef, run: RunConfig, trainer: TrainGroup, steps: int) -> tuple[Update, Metrics]:
    """Return the optimizer steps of a rollout, and its mismatch where the trainer's log-probabilities were needed anyway (else empty).

    `steps`: rollout steps of the run as of now.

    The reference is consulted when KL has a coefficient or is measured; the trainer's own log-probabilities are when several
    optimizer steps share the rollout (they are then the fixed `old` ones) or KL is part of the reward.
    """
    algorithm, temperature = run.algorithm, run.sampling.temperature
    # As many optimizer steps as planned, of nearly equal size: lost episodes leave a batch shorter.
    size = -(-len(batch) // max(1, samples_per_step(algorithm) // global_batch_size(algorithm)))
    in_reward = algorithm.kl.placement == "reward" and algorithm.kl.coefficient > 0
    found: Metrics = {}
    if reads_reference(algorithm.kl):
        rows, _ = trainer.logprobs(batch, "reference", temperature)
        batch = BatchRef(batch.episodes, None, rows)
    if size < len(batch) or in_reward:
        batch, found = measure(batch, trainer, temperature)

    def moments(values: Sequence[float], rule: Rule) -> list[Moments]:
        return trainer.moments(batch, values, rule)

    values, rule = signals(batch, algorithm, moments if in_reward else None)
    plan = schedule(batch.lengths, mesh_of(run), budget_of(run, size))
    return Update(batch, tuple(values), rule, plan, steps), found

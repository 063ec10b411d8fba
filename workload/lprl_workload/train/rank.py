"""What a rank does with the episodes it was given: whatever needs tokens happens here, and answers are numbers or arrays that stay.

The same functions serve a rank in this process and one behind Ray (launch/local.py, launch/hosts.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeVar

import numpy as np

from lprl_workload.data import Metrics
from lprl_workload.episode import Episode, Float32, Float64, TrainSample, bare_sample
from lprl_workload.train.actor import TrainActor
from lprl_workload.train.advantage import Moments, Rule, moments, token_advantages
from lprl_workload.train.kl import kl_per_token
from lprl_workload.train.mismatch import MismatchSums, mismatch
from lprl_workload.train.step_plan import StepPlan

Whose = Literal["policy", "reference"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Share:
    """A rank's part of one pass: the batch's sequence numbers in the order they run, and how many each micro-batch takes."""

    numbers: tuple[int, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TrainWork:
    """What a rank is told of an optimizer step, beside its episodes."""

    sizes: tuple[int, ...]
    values: tuple[float, ...]
    """One per episode; `rule` makes advantages of them."""
    rule: Rule
    has_old: bool
    has_reference: bool
    global_samples: int
    global_tokens: int
    steps: int | None = None
    """Rollout steps of the run as of now."""


def share_of(plan: StepPlan, step: int, rank: int) -> Share:
    """Return what `rank` runs; where it takes no data, as many micro-batches without."""
    parts = plan.micro_batches(step, rank)
    if not plan.mesh.takes_data(rank):
        return Share((), (0,) * len(parts))
    return Share(tuple(n for part in parts for n in part), tuple(map(len, parts)))


def nested(items: Sequence[T], sizes: Sequence[int]) -> list[Sequence[T]]:
    """Cut `items` into micro-batches of `sizes`."""
    edges = np.cumsum([0, *sizes]).tolist()
    return [items[first:last] for first, last in pairwise(edges)]


def rank_logprobs(
    actor: TrainActor, of: Whose, sizes: Sequence[int], temperature: float, episodes: Sequence[Episode]
) -> tuple[list[MismatchSums], list[Float32]]:
    """Return, per episode, its mismatch with the rollout and its log-probabilities float32 [R], under the policy or the reference."""
    ask = actor.logprobs if of == "policy" else actor.reference_logprobs
    rows = [row for part in ask(nested([bare_sample(e) for e in episodes], sizes), temperature) for row in part]
    return [mismatch(row, episode.logprobs) for row, episode in zip(rows, episodes, strict=False)], rows


def rank_probe(actor: TrainActor, ids: Sequence[int]) -> tuple[float, ...]:
    """Return the current policy's log-probabilities of ids[1:] given what precedes each, temperature 1; on every rank alike."""
    drawn = np.arange(len(ids)) > 0
    nothing = np.zeros(len(ids) - 1, np.float32)
    sample = TrainSample(np.asarray(ids, np.int32), drawn, nothing, nothing)
    return tuple(float(value) for value in actor.logprobs([[sample]], 1.0)[0][0])


def rank_moments(
    values: Sequence[float], rule: Rule, episodes: Sequence[Episode], old: Sequence[Float32], reference: Sequence[Float32]
) -> list[Moments]:
    """Return the moments of each episode's advantages under `rule`."""
    kls = [kl_per_token(o, r, rule.estimator) for o, r in zip(old, reference, strict=True)]
    rows = zip(values, episodes, kls, strict=True)
    return [moments(token_advantages(value, episode.tokens[2], rule, kl)) for value, episode, kl in rows]


def rank_train(
    actor: TrainActor, work: TrainWork, episodes: Sequence[Episode], old: Sequence[Float32], reference: Sequence[Float32]
) -> Metrics:
    """Do this rank's part of an optimizer step; `old` and `reference` are empty where the work has none."""
    samples = []
    for number, (episode, value) in enumerate(zip(episodes, work.values, strict=True)):
        o, r = old[number] if work.has_old else None, reference[number] if work.has_reference else None
        samples.append(train_sample(episode, value, work.rule, o, r))
    return actor.train(nested(samples, work.sizes), work.global_samples, work.global_tokens, work.steps)


def train_sample(episode: Episode, value: float, rule: Rule, old: Float32 | None, reference: Float32 | None) -> TrainSample:
    """Return an episode with its advantages."""
    kl: Float64 | None = None
    if rule.coefficient and rule.shape != "level":
        if old is None or reference is None:
            raise ValueError("KL in the reward needs log-probabilities of policy and reference")
        kl = kl_per_token(old, reference, rule.estimator)
    advantage = token_advantages(value, episode.tokens[2], rule, kl).astype(np.float32)
    return TrainSample(episode.ids, episode.mask, episode.logprobs, advantage, old, reference)

"""Rewards -> per-token advantages (pure). Formulas: docs/numerics.md.

Symbols: r reward of a sample, g its group (the samples of one prompt), k_t KL of drawn token t, b coefficient of KL in the reward.

In two places, so that no token passes through the driver: `signals` turns rewards, there, into one value per sample and one Rule;
`token_advantages` turns value and Rule, on the rank that trains the sample, into [R]. Only where KL is in the reward, or tokens
are whitened, does the driver ask for sums over tokens (`Moments`), which add up over samples.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from lprl_api.derived import effective
from lprl_api.spec.algorithm import Algorithm
from lprl_workload.episode import BatchRef, Float64
from lprl_workload.train.kl import Estimator

STD_EPSILON = 1e-6
WHITEN_EPSILON = 1e-8


@dataclass(frozen=True, slots=True)
class Rule:
    """How a sample's value v becomes one advantage per drawn token, A_t = (x_t - shift) / scale.

    level: x_t = v. penalised: x_t = v - b k_t. returns: x_t = -b k_t (plus v on the last token) + discount x_{t+1}.
    """

    shape: Literal["level", "penalised", "returns"]
    coefficient: float = 0.0
    """b; with 0 no KL is needed."""
    estimator: Estimator = "k1"
    discount: float = 1.0
    shift: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, sum and sum of squared distances from the mean, of some values."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def __add__(self, other: "Moments") -> "Moments":
        if not self.count or not other.count:
            return other if other.count else self
        count = self.count + other.count
        apart = other.total / other.count - self.total / self.count
        squares = self.squares + other.squares + apart * apart * self.count * other.count / count
        return Moments(count, self.total + other.total, squares)


Measure = Callable[[Sequence[float], Rule], list[Moments]]
"""values [N], rule -> moments of each sample's token_advantages, measured where its tokens are."""


def signals(batch: BatchRef, algorithm: Algorithm, measure: Measure | None = None) -> tuple[list[float], Rule]:
    """Return one value per sample of a whole rollout, and the rule that makes advantages of them.

    grpo, gspo, cispo, dr-grpo: A = (r' - mean_g) / (std_g + 1e-6) on every token, std unbiased; dr-grpo, or normalizeByStd false:
    without the division. r' = r - b * sum_t k_t where KL is in the reward.
    reinforce-plus-plus: token reward -b * k_t, plus r on the last token; A_t its discounted return; then whitened.
    reinforce-plus-plus-baseline: A_t = (r - mean_g) - b * k_t; then whitened.

    Args:
        batch: the whole rollout, scored.
        algorithm: objective and settings.
        measure: needed when KL is in the reward.

    """
    coefficient = algorithm.kl.coefficient if algorithm.kl.placement == "reward" else 0.0
    if coefficient and measure is None:
        raise ValueError("KL in the reward needs moments measured over tokens")
    if measure is None or not coefficient:
        measure = lambda values, rule: [moments(token_advantages(v, int(n), rule)) for v, n in zip(values, batch.drawn, strict=True)]  # noqa: E731
    rewards, by_std = list(batch.rewards), effective.normalizes_by_std(algorithm)
    penalised = Rule("penalised", coefficient, algorithm.kl.estimator)
    match algorithm.name:
        case "reinforce-plus-plus":
            values, rule = rewards, replace(penalised, shape="returns", discount=algorithm.discount)
        case "reinforce-plus-plus-baseline":
            values, rule = group_advantages(rewards, batch.groups, by_std), penalised
        case _:
            if coefficient:
                penalties = measure([0.0] * len(batch), penalised)
                rewards = [reward + penalty.total for reward, penalty in zip(rewards, penalties, strict=True)]
            values, rule = group_advantages(rewards, batch.groups, by_std), Rule("level")
    return values, whitened(rule, measure(values, rule)) if effective.whitens(algorithm) else rule


def token_advantages(value: float, tokens: int, rule: Rule, kl: Float64 | None = None) -> Float64:
    """Return the advantages of one sample, float64 [R].

    Args:
        value: of the sample (`signals`).
        tokens: R.
        rule: of the rollout.
        kl: [R] KL estimate of each drawn token, needed when the rule has a coefficient.

    """
    penalties = np.zeros(tokens)
    if rule.coefficient and rule.shape != "level":
        if kl is None or len(kl) != tokens:
            raise ValueError(f"KL in the reward needs one KL value per drawn token: got {0 if kl is None else len(kl)}, needs {tokens}")
        penalties = rule.coefficient * kl
    x = _returns(value, penalties, rule.discount) if rule.shape == "returns" else value - penalties
    return x if (rule.shift, rule.scale) == (0.0, 1.0) else (x - rule.shift) / rule.scale


def moments(values: Float64) -> Moments:
    """Return the moments of some values."""
    if not len(values):
        return Moments()
    return Moments(len(values), math.fsum(values), float(np.square(values - values.mean()).sum()))


def whitened(rule: Rule, parts: Sequence[Moments]) -> Rule:
    """Return `rule` with all tokens together shifted to mean 0 and scaled to unbiased variance 1 (epsilon 1e-8 under the root)."""
    whole = sum(parts, Moments())
    if not whole.count:
        return rule
    variance = whole.squares / (whole.count - 1) if whole.count > 1 else 0.0
    return replace(rule, shift=whole.total / whole.count, scale=math.sqrt(variance + WHITEN_EPSILON))


def group_advantages(rewards: Sequence[float], groups: Sequence[int], by_std: bool) -> list[float]:
    """Return rewards minus their group's mean, divided by its unbiased standard deviation + 1e-6 when `by_std`.

    Groups of one sample have advantage 0.
    """
    members: dict[int, list[float]] = defaultdict(list)
    for group, reward in zip(groups, rewards, strict=True):
        members[group].append(reward)
    mean = {g: math.fsum(v) / len(v) for g, v in members.items()}
    scale = {g: 1.0 for g in members}
    if by_std:
        scale = {g: _unbiased_std(v, mean[g]) + STD_EPSILON for g, v in members.items()}
    return [(reward - mean[group]) / scale[group] for group, reward in zip(groups, rewards, strict=True)]


def _unbiased_std(values: Sequence[float], mean: float) -> float:
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else 0.0


def _returns(reward: float, penalties: Float64, discount: float) -> Float64:
    rewards = -penalties
    if not len(rewards):
        return rewards
    rewards[-1] += reward
    if discount == 1.0:
        return np.cumsum(rewards[::-1])[::-1]
    total, returns = 0.0, np.empty(len(rewards))
    for place in range(len(rewards) - 1, -1, -1):
        total = rewards[place] + discount * total
        returns[place] = total
    return returns

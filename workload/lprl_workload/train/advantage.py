"""Rewards -> per-token advantages (pure, on the driver, over the whole rollout). Formulas: docs/numerics.md.

Symbols: r reward of a sample, g its group (the samples of one prompt), k_t KL of token t, b coefficient of KL in the reward.
"""

import math
from collections import defaultdict
from collections.abc import Sequence

from lprl_api.derived import effective
from lprl_api.spec.algorithm import Algorithm
from lprl_workload.data import Sample

STD_EPSILON = 1e-6
WHITEN_EPSILON = 1e-8
TokenValues = tuple[float, ...]


def advantages(samples: Sequence[Sample], algorithm: Algorithm, kl: Sequence[Sequence[float]] | None = None) -> list[TokenValues]:
    """Return one advantage per response token of every sample.

    grpo, gspo, cispo, dr-grpo: A = (r' - mean_g) / (std_g + 1e-6) on every token, std unbiased; dr-grpo, or normalizeByStd false:
    without the division. r' = r - b * sum_t k_t where KL is in the reward.
    reinforce-plus-plus: token reward -b * k_t, plus r on the last token; A_t its discounted return; then whitened.
    reinforce-plus-plus-baseline: A_t = (r - mean_g) - b * k_t; then whitened.

    Args:
        samples: the whole rollout.
        algorithm: objective and settings.
        kl: per response token, needed when KL is in the reward; ignored otherwise.

    """
    coefficient = algorithm.kl.coefficient if algorithm.kl.placement == "reward" else 0.0
    penalties = _penalties(samples, kl, coefficient)
    match algorithm.name:
        case "reinforce-plus-plus":
            rows = [_returns(s.reward, p, algorithm.discount) for s, p in zip(samples, penalties, strict=True)]
        case "reinforce-plus-plus-baseline":
            centred = group_advantages([s.reward for s in samples], [s.group for s in samples], effective.normalizes_by_std(algorithm))
            rows = [[a - p for p in penalty] for a, penalty in zip(centred, penalties, strict=True)]
        case _:
            rewards = [s.reward - math.fsum(p) for s, p in zip(samples, penalties, strict=True)]
            values = group_advantages(rewards, [s.group for s in samples], effective.normalizes_by_std(algorithm))
            rows = [[a] * len(s.response_ids) for a, s in zip(values, samples, strict=True)]
    if effective.whitens(algorithm):
        rows = whiten(rows)
    return [tuple(row) for row in rows]


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


def whiten(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    """Shift and scale all tokens together to mean 0 and unbiased variance 1 (epsilon 1e-8 under the root)."""
    flat = [value for row in rows for value in row]
    if not flat:
        return [list(row) for row in rows]
    mean = math.fsum(flat) / len(flat)
    scale = math.sqrt(_unbiased_std(flat, mean) ** 2 + WHITEN_EPSILON)
    return [[(value - mean) / scale for value in row] for row in rows]


def _unbiased_std(values: Sequence[float], mean: float) -> float:
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else 0.0


def _penalties(samples: Sequence[Sample], kl: Sequence[Sequence[float]] | None, coefficient: float) -> list[list[float]]:
    if coefficient == 0.0:
        return [[0.0] * len(s.response_ids) for s in samples]
    if kl is None or [len(row) for row in kl] != [len(s.response_ids) for s in samples]:
        raise ValueError("KL in the reward needs one KL value per response token")
    return [[coefficient * k for k in row] for row in kl]


def _returns(reward: float, penalties: Sequence[float], discount: float) -> list[float]:
    rewards = [-p for p in penalties]
    if rewards:
        rewards[-1] += reward
    total, returns = 0.0, []
    for value in reversed(rewards):
        total = value + discount * total
        returns.append(total)
    return returns[::-1]

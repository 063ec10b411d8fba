"""Advantages against values worked out by hand."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lprl_api.spec.algorithm import Algorithm
from lprl_workload.episode import BatchRef, EpisodeRef, Float64
from lprl_workload.train.advantage import Moments, Rule, group_advantages, moments, signals, token_advantages, whitened


def sample(group: int, reward: float, tokens: int) -> EpisodeRef:
    return EpisodeRef(group, group, 0, 1, 1 + tokens, tokens, 0, 0, "stop", reward=reward)


def advantages(samples: Sequence[EpisodeRef], settings: Algorithm, kl: Sequence[Sequence[float]] | None = None) -> list[list[float]]:
    """What the driver and the ranks make together."""
    kls = [np.zeros(s.drawn_tokens) for s in samples] if kl is None else [np.array(row) for row in kl]

    def tokens(values: Sequence[float], rule: Rule) -> list[Float64]:
        return [token_advantages(v, s.drawn_tokens, rule, k) for v, s, k in zip(values, samples, kls, strict=True)]

    measure = None if kl is None else lambda values, rule: [moments(row) for row in tokens(values, rule)]
    return [row.tolist() for row in tokens(*signals(BatchRef(tuple(samples)), settings, measure))]


def algorithm(name: str, **changes: Any) -> Algorithm:
    return Algorithm.model_validate({"name": name, "steps": 1, **changes})


GROUP = [sample(0, 1.0, 2), sample(0, 0.0, 1), sample(0, 0.0, 3), sample(1, 5.0, 1), sample(1, 5.0, 1)]
STD = math.sqrt((4 / 9 + 1 / 9 + 1 / 9) / 2)  # of 1, 0, 0 around 1/3, unbiased


@pytest.mark.parametrize("name", ["grpo", "gspo", "cispo"])
def test_group_norm(name: str) -> None:
    got = advantages(GROUP, algorithm(name))
    up, down = (2 / 3) / (STD + 1e-6), (-1 / 3) / (STD + 1e-6)
    assert [list(map(pytest.approx, row)) for row in got] == [[up] * 2, [down], [down] * 3, [0.0], [0.0]]


@pytest.mark.parametrize(("name", "changes"), [("dr-grpo", {}), ("grpo", {"normalize_by_std": False})])
def test_mean_only(name: str, changes: dict[str, Any]) -> None:
    got = advantages(GROUP, algorithm(name, **changes))
    assert [row[0] for row in got] == pytest.approx([2 / 3, -1 / 3, -1 / 3, 0, 0])


def test_group_of_one_learns_nothing() -> None:
    assert group_advantages([3.0], [7], by_std=True) == [0.0]


def test_kl_in_the_reward_lowers_it_before_the_group_norm() -> None:
    pair = [sample(0, 1.0, 2), sample(0, 1.0, 1)]
    got = advantages(pair, algorithm("dr-grpo", kl={"coefficient": 0.5, "placement": "reward"}), kl=[(0.2, 0.4), (0.0,)])
    assert got == [pytest.approx([-0.15, -0.15]), pytest.approx([0.15])]


def test_kl_in_the_loss_is_not_in_the_reward() -> None:
    settings = algorithm("dr-grpo", kl={"coefficient": 0.5, "placement": "loss"})
    assert advantages(GROUP, settings, kl=[(9.0,) * s.drawn_tokens for s in GROUP]) == advantages(GROUP, algorithm("dr-grpo"))


def test_reinforce_plus_plus_discounted_returns() -> None:
    settings = algorithm("reinforce-plus-plus", discount=0.5, whiten_advantages=False, kl={"coefficient": 0.1, "placement": "reward"})
    got = advantages([sample(0, 2.0, 3)], settings, kl=[(1.0, 2.0, 3.0)])
    last = 2.0 - 0.3
    assert got[0] == pytest.approx([-0.1 + 0.5 * (-0.2 + 0.5 * last), -0.2 + 0.5 * last, last])


def test_reinforce_plus_plus_whitens_over_all_tokens() -> None:
    got = advantages([sample(0, 1.0, 2), sample(1, -1.0, 2)], algorithm("reinforce-plus-plus"))
    scale = math.sqrt(4 / 3 + 1e-8)  # 1, 1, -1, -1: unbiased variance 4/3
    assert [list(row) for row in got] == [pytest.approx([1 / scale] * 2), pytest.approx([-1 / scale] * 2)]


def test_reinforce_plus_plus_baseline() -> None:
    settings = algorithm("reinforce-plus-plus-baseline", whiten_advantages=False, kl={"coefficient": 1.0, "placement": "reward"})
    got = advantages([sample(0, 1.0, 2), sample(0, 0.0, 1)], settings, kl=[(0.1, 0.2), (0.3,)])
    assert got == [pytest.approx([0.4, 0.3]), pytest.approx([-0.8])]


@pytest.mark.parametrize("rows", [[[1.0, 2.0], [4.0]], [[0.5], [0.5]], [[], [3.0, -3.0]]], ids=["plain", "constant", "empty-row"])
def test_whitened_values_have_mean_zero(rows: Sequence[Sequence[float]]) -> None:
    rule = whitened(Rule("level"), [moments(np.array(row)) for row in rows])
    flat = [(value - rule.shift) / rule.scale for row in rows for value in row]
    assert sum(flat) == pytest.approx(0, abs=1e-9)
    assert len(set(flat)) == 1 or statistics.variance(flat) == pytest.approx(1)


@given(st.lists(st.lists(st.floats(-100, 100), max_size=6), max_size=6))
def test_moments_add_up_over_samples(rows: list[list[float]]) -> None:
    found = sum((moments(np.array(row)) for row in rows), Moments())
    flat = np.array([value for row in rows for value in row])
    want = moments(flat)
    assert found.count == want.count
    assert (found.total, found.squares) == (pytest.approx(want.total, abs=1e-6), pytest.approx(want.squares, abs=1e-6))


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_returns_are_sums_from_behind(discount: float) -> None:
    kl = np.random.default_rng(0).normal(size=50)
    got = token_advantages(2.0, 50, Rule("returns", 0.1, discount=discount), kl)
    total, want = 0.0, []
    for place in reversed(range(50)):
        total = -0.1 * kl[place] + 2.0 * (place == 49) + discount * total
        want.append(total)
    assert got.tolist() == pytest.approx(want[::-1])


def test_kl_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="one KL value per drawn token: got 1, needs 2"):
        advantages([sample(0, 1.0, 2)], algorithm("grpo", kl={"coefficient": 1.0, "placement": "reward"}), kl=[(1.0,)])

"""Advantages against values worked out by hand."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

from lprl_api.spec.algorithm import Algorithm
from lprl_workload.data import Sample
from lprl_workload.train.advantage import advantages, group_advantages, whiten


def sample(group: int, reward: float, tokens: int) -> Sample:
    return Sample(group, group, 0, (1,), (2,) * tokens, (-1.0,) * tokens, reward, "stop", 0, 0)


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
    assert got == [pytest.approx((-0.15, -0.15)), pytest.approx((0.15,))]


def test_kl_in_the_loss_is_not_in_the_reward() -> None:
    settings = algorithm("dr-grpo", kl={"coefficient": 0.5, "placement": "loss"})
    assert advantages(GROUP, settings, kl=[(9.0,) * len(s.response_ids) for s in GROUP]) == advantages(GROUP, algorithm("dr-grpo"))


def test_reinforce_plus_plus_discounted_returns() -> None:
    settings = algorithm("reinforce-plus-plus", discount=0.5, whiten_advantages=False, kl={"coefficient": 0.1, "placement": "reward"})
    got = advantages([sample(0, 2.0, 3)], settings, kl=[(1.0, 2.0, 3.0)])
    last = 2.0 - 0.3
    assert got[0] == pytest.approx((-0.1 + 0.5 * (-0.2 + 0.5 * last), -0.2 + 0.5 * last, last))


def test_reinforce_plus_plus_whitens_over_all_tokens() -> None:
    got = advantages([sample(0, 1.0, 2), sample(1, -1.0, 2)], algorithm("reinforce-plus-plus"))
    scale = math.sqrt(4 / 3 + 1e-8)  # 1, 1, -1, -1: unbiased variance 4/3
    assert [list(row) for row in got] == [pytest.approx([1 / scale] * 2), pytest.approx([-1 / scale] * 2)]


def test_reinforce_plus_plus_baseline() -> None:
    settings = algorithm("reinforce-plus-plus-baseline", whiten_advantages=False, kl={"coefficient": 1.0, "placement": "reward"})
    got = advantages([sample(0, 1.0, 2), sample(0, 0.0, 1)], settings, kl=[(0.1, 0.2), (0.3,)])
    assert got == [pytest.approx((0.4, 0.3)), pytest.approx((-0.8,))]


@pytest.mark.parametrize("rows", [[[1.0, 2.0], [4.0]], [[0.5], [0.5]], [[], [3.0, -3.0]]], ids=["plain", "constant", "empty-row"])
def test_whitened_values_have_mean_zero(rows: Sequence[Sequence[float]]) -> None:
    flat = [v for row in whiten(rows) for v in row]
    assert sum(flat) == pytest.approx(0, abs=1e-9)
    assert [len(r) for r in whiten(rows)] == [len(r) for r in rows]


def test_kl_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="one KL value per response token"):
        advantages([sample(0, 1.0, 2)], algorithm("grpo", kl={"coefficient": 1.0, "placement": "reward"}), kl=[(1.0,)])

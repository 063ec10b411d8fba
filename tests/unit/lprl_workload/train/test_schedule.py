"""Learning rates worked out by hand."""

from typing import Any

import pytest

from lprl_api.spec.algorithm import Algorithm, Optimizer
from lprl_workload.train.schedule import learning_rate, total_steps


@pytest.mark.parametrize(
    ("settings", "step", "want"),
    [
        pytest.param({"schedule": "constant"}, 7, 1.0, id="constant"),
        pytest.param({"schedule": "constant", "warmup_steps": 4}, 0, 0.25, id="first-warm-up-step"),
        pytest.param({"schedule": "constant", "warmup_steps": 4}, 3, 1.0, id="last-warm-up-step"),
        pytest.param({"schedule": "linear"}, 0, 1.0, id="linear-start"),
        pytest.param({"schedule": "linear"}, 5, 0.5, id="linear-middle"),
        pytest.param({"schedule": "linear", "min_learning_rate": 0.2}, 10, 0.2, id="linear-end"),
        pytest.param({"schedule": "linear", "warmup_steps": 2}, 6, 0.5, id="linear-after-warm-up"),
        pytest.param({"schedule": "cosine"}, 5, 0.5, id="cosine-middle"),
        pytest.param({"schedule": "cosine", "min_learning_rate": 0.5}, 5, 0.75, id="cosine-middle-with-floor"),
        pytest.param({"schedule": "cosine"}, 99, 0.0, id="past-the-end"),
    ],
)
def test_learning_rate(settings: dict[str, Any], step: int, want: float) -> None:
    optimizer = Optimizer.model_validate({"learning_rate": 1.0, **settings})
    assert learning_rate(optimizer, step, total=10) == pytest.approx(want)


@pytest.mark.parametrize(("global_batch", "want"), [(None, 5), (64, 20), (256, 5)])
def test_total_steps(global_batch: int | None, want: int) -> None:
    algorithm = Algorithm(steps=5, rollout_batch_size=32, samples_per_prompt=8, global_batch_size=global_batch)
    assert total_steps(algorithm) == want
    assert total_steps(algorithm, 10) == 2 * want, "where the steps were raised since"

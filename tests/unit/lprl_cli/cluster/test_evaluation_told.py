"""What `status` says of the newest evaluation."""

from typing import Any

import pytest

from lprl_cli.cluster.table import _evaluation


@pytest.mark.parametrize(
    ("evaluation", "told"),
    [
        ({"step": 40, "weightVersion": 41, "served": "fp8-block"}, "0.5 (step 40, weights 41; fp8-block)"),
        ({"step": 40, "weightVersion": 0}, "0.5 (step 40, weights 0)"),
        ({"step": 40, "served": "fp8-block"}, "0.5 (fp8-block)"),  # of an earlier driver
        ({}, "0.5"),
    ],
)
def test_an_evaluation_is_told_with_its_step_and_the_weights_that_drew_it(evaluation: dict[str, Any], told: str) -> None:
    assert _evaluation({"evaluationReward": "0.5", "evaluation": evaluation}) == told
    assert _evaluation({}) == ""

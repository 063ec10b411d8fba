"""What a plan says of the mismatch to expect."""

import pytest

from lprl_api.spec.algorithm import Algorithm
from lprl_api.spec.precision import Precision
from lprl_operator.plan.mismatch import ROWS, UNMEASURED, expectation, expected, warnings


def precision(training: str, rollout: str, activations: str = "dynamic") -> Precision:
    return Precision.model_validate({"training": training, "rollout": rollout, "fp8": {"activations": activations}})


def algorithm(**changes: object) -> Algorithm:
    return Algorithm.model_validate({"steps": 1, **changes})


def test_every_measured_row_is_found_again() -> None:
    assert all(expected(precision(row.training, row.rollout, row.activations or "dynamic")) is row for row in ROWS)
    assert len({(row.training, row.rollout, row.activations) for row in ROWS}) == len(ROWS)


def test_a_matched_weight_only_pair_is_expected_near_the_floor() -> None:
    floor, matched, plain = (expected(precision(*pair)) for pair in (("bf16", "bf16"), ("fp8-qat", "fp8", "none"), ("bf16", "fp8")))
    assert floor and matched and plain
    assert matched.k3[1] <= 2 * floor.k3[1] < plain.k3[0] / 5
    assert expectation(precision("fp8-qat", "fp8", "none")) == "K3 about 0.0015 (SmolLM2-135M on SGLang, one H200)"


def test_what_was_not_measured_is_not_guessed() -> None:
    assert UNMEASURED in expectation(precision("fp8", "bf16"))


@pytest.mark.parametrize(
    ("pair", "settings", "warned"),
    [
        (("fp8-qat", "fp8"), {"name": "gspo"}, True),
        (("fp8-qat", "fp8"), {"correction": {"type": "mis", "level": "sequence"}}, True),
        (("fp8-qat", "fp8"), {"correction": {"type": "none", "level": "sequence"}}, False),
        (("fp8-qat", "fp8"), {"correction": {"type": "tis"}}, False),
        (("fp8-qat", "fp8", "none"), {"name": "gspo"}, False),
        (("int4-qat", "int4"), {"name": "gspo"}, False),
        (("bf16", "bf16"), {"name": "gspo"}, False),
    ],
)
def test_sequence_ratios_are_warned_of_with_rounded_activations(pair: tuple[str, ...], settings: dict[str, object], warned: bool) -> None:
    found = warnings(precision(*pair), algorithm(**settings))
    assert any("sequence-level" in text for text in found) == warned

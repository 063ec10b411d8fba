"""What a plan says of the mismatch to expect."""

import pytest

from lprl_api.catalog.mismatch import ROWS, UNMEASURED, expectation, expected, remarks
from lprl_api.catalog.presets import preset_manifest
from lprl_api.rules.advice import advise
from lprl_api.rules.parse import parse_job
from lprl_api.spec.precision import Precision


def precision(training: str, rollout: str, activations: str = "dynamic") -> Precision:
    return Precision.model_validate({"training": training, "rollout": rollout, "fp8": {"activations": activations}})


def test_every_measured_row_is_found_again() -> None:
    assert all(expected(precision(row.training, row.rollout, row.activations or "dynamic")) is row for row in ROWS)
    assert len({(row.training, row.rollout, row.activations) for row in ROWS}) == len(ROWS)


def test_a_matched_weight_only_pair_is_expected_near_the_floor() -> None:
    floor, matched, plain = (expected(precision(*pair)) for pair in (("bf16", "bf16"), ("fp8-qat", "fp8", "none"), ("bf16", "fp8")))
    assert floor and matched and plain
    assert matched.k3[1] <= 2 * floor.k3[1] < plain.k3[0] / 5
    assert expectation(precision("fp8-qat", "fp8", "none")) == "K3 about 0.0013 to 0.0015 (SmolLM2-135M on SGLang, one H200)"


def test_what_was_not_measured_is_not_guessed() -> None:
    assert UNMEASURED in expectation(precision("fp8", "bf16"))


SEQUENCES = "token-level ratios, or precision.training"


@pytest.mark.parametrize(
    ("pair", "settings", "path"),
    [
        (("fp8-qat", "fp8"), {"name": "gspo"}, "algorithm.name"),
        (("bf16", "fp8", "none"), {"name": "gspo"}, "algorithm.name"),
        (("bf16", "int4"), {"name": "gspo"}, "algorithm.name"),
        *(
            (("fp8", "fp8"), {"correction": {"type": "mis", "level": "sequence", "mode": mode}}, "algorithm.correction.level")
            for mode in ("truncate", "clip", "mask")
        ),
        (("fp8-qat", "fp8"), {"correction": {"type": "mis", "level": "geometric"}}, None),
        (("fp8-qat", "fp8"), {"correction": {"type": "mis"}}, None),
        (("fp8-qat", "fp8"), {"correction": {"type": "tis"}}, None),
        (("fp8-qat", "fp8"), {}, None),
        (("fp8-qat", "fp8", "none"), {"name": "gspo"}, None),
        (("int4-qat", "int4"), {"name": "gspo"}, None),
        (("bf16", "bf16"), {"name": "gspo"}, None),
    ],
)
def test_ratios_of_whole_responses_are_warned_of_where_the_mismatch_leaves_them_to_a_few(
    pair: tuple[str, ...], settings: dict[str, object], path: str | None
) -> None:
    document = preset_manifest("qwen3-4b-fp8")
    document["spec"]["precision"] |= precision(*pair).model_dump(mode="json", by_alias=True, include={"training", "rollout", "fp8"})
    document["spec"]["algorithm"] |= settings
    found = [warning for warning in advise(parse_job(document).spec) if SEQUENCES in warning.need]
    assert [warning.path.removeprefix("spec.") for warning in found] == ([] if path is None else [path])


def test_a_pair_is_told_what_another_would_save() -> None:
    assert "fp8-qat" in remarks(precision("bf16", "fp8"))[0] and "int4-qat" in remarks(precision("bf16", "int4"))[0]
    assert "independent noises" in remarks(precision("fp8", "fp8"))[0]
    assert not [pair for pair in (("bf16", "bf16"), ("fp8-qat", "fp8"), ("int4-qat", "int4")) if remarks(precision(*pair))]

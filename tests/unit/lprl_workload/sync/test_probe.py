"""The probe tells engines with wrong weights from engines that round differently."""

import math

import pytest

from lprl_api.model.formats import Bf16, Fp8Block, Fp8Channel, Int4Group, WeightFormat
from lprl_workload.sync.probe import SAME_WEIGHTS_LIMIT, TRAINER_LIMIT, judge, probe_ids, trainer_limit


@pytest.mark.parametrize("vocab", [40, 512, 151_936])
def test_the_prompt_is_fixed_and_within_the_vocabulary(vocab: int) -> None:
    ids = probe_ids(vocab)
    assert ids == probe_ids(vocab) and all(0 <= token < vocab for token in ids) and len(set(ids)) > 8


GOOD = (-1.0, -2.0, -3.0)


@pytest.mark.parametrize(
    ("engines", "trainer", "found"),
    [
        pytest.param([GOOD, GOOD], GOOD, "", id="equal"),
        pytest.param([GOOD, (-1.01, -2.0, -3.0)], (-1.1, -2.3, -2.8), "", id="rounding"),
        pytest.param([GOOD], None, "", id="nobody-to-compare-with"),
        pytest.param([GOOD, (-1.0, math.nan, -3.0)], None, "engine 1 finds log-probabilities that are not finite", id="nan"),
        pytest.param([(-math.inf, -2.0, -3.0)], GOOD, "engine 0 finds log-probabilities that are not finite", id="infinite"),
        pytest.param(
            [GOOD, (-1.5, -2.0, -3.0)], GOOD, "engine 1 and engine 0 differ by 0.167 nats a token on the probe", id="engines-differ"
        ),
        pytest.param([(-5.0, -6.0, -7.0)], GOOD, "engine 0 and the trainer differ by 4 nats a token on the probe", id="all-wrong"),
    ],
)
def test_judgement(engines: list[tuple[float, ...]], trainer: tuple[float, ...] | None, found: str) -> None:
    assert judge(engines, trainer).startswith(found) and bool(judge(engines, trainer)) == bool(found)


@pytest.mark.parametrize(
    ("served", "trained", "limit"),
    [
        (Bf16(), Bf16(), SAME_WEIGHTS_LIMIT),
        (Int4Group(), Int4Group(), SAME_WEIGHTS_LIMIT),
        (Fp8Block(), Bf16(), TRAINER_LIMIT),
        (Fp8Channel(), Fp8Channel(), TRAINER_LIMIT),
    ],
)
def test_engines_may_be_as_far_from_the_trainer_as_their_format_rounds(served: WeightFormat, trained: WeightFormat, limit: float) -> None:
    assert trainer_limit(served, trained) == limit
    near, far = tuple(x - limit + 0.05 for x in GOOD), tuple(x - limit - 0.05 for x in GOOD)
    assert judge([near], GOOD, limit) == "" and "the trainer" in judge([far], GOOD, limit)

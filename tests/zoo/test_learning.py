"""Families without a table learn the demo's task from random weights, quantised on both sides (`make test-zoo-learning`)."""

from pathlib import Path

import pytest
from tests.zoo.families import ALL
from tests.zoo.runs import learned

LEARN = {"qwen3_5_text": 80, "qwen3_5_moe_text": 60, "glm4_moe": 60}
"""Family -> steps, twice as many as it took to answer most questions."""


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("pair", ["int4-qat/int4", "fp8/fp8"])
@pytest.mark.parametrize("model_type", LEARN)
def test_a_family_learns_to_answer_questions_it_has_not_seen(
    model_type: str, pair: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LPRL_VOLUMES_ROOT", str(tmp_path))
    case = next(case for case in ALL if case.model_type == model_type)
    found = learned(tmp_path, case, pair, LEARN[model_type])
    assert found.heldout[0] < 0.1, "it begins with nothing"
    assert found.heldout[-1] > 0.8, found
    assert found.k3 < 1e-5, "trainer and engine compute the same"

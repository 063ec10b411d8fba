"""Right answers in another form than the label's, and wrong ones that look alike: verdicts of mathematics, in both directions."""

import pytest
from tests.unit.lprl_workload.rollout.answer_pairs_forms import DAPO_FORMS, FORMS, SAID, WORDS

from lprl_workload.rollout.reward_math import MathJudge
from lprl_workload.rollout.reward_text import dapo_right


def test_an_answer_in_another_form_is_the_label_where_mathematics_says_so() -> None:
    judge = MathJudge(limit_s=20.0)
    turned = [(label, answer, right) for answer, label, right, *_ in [*FORMS, *WORDS]]
    forms = [row[:3] for row in [*FORMS, *WORDS]]
    pairs = [(rf"\boxed{{{a}}}", b, right) for a, b, right in [*forms, *turned]] + [row[:3] for row in SAID]
    verdicts = judge.judge([(response, label) for response, label, _ in pairs])
    judge.close()
    wrong = [(pair, verdict) for pair, verdict in zip(pairs, verdicts, strict=True) if verdict != bool(pair[2])]
    assert len(FORMS) >= 80 and {pair[2] for pair in pairs} == {0, 1}
    assert wrong == []


@pytest.mark.parametrize(("response", "label", "right"), [row[:3] for row in DAPO_FORMS])
def test_a_dapo_line_in_another_form_says_its_label(response: str, label: str, right: int) -> None:
    assert dapo_right(response, label) == bool(right)

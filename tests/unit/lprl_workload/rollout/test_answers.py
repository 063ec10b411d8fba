"""Answers compared wrongly: every pair has the verdict mathematics gives it, in both directions."""

from collections.abc import Iterator

import pytest
from tests.unit.lprl_workload.rollout.answer_pairs import DAPO, MATH

from lprl_api.spec.algorithm import Reward
from lprl_workload.rollout.answers import as_number, canonical, for_algebra, same_answer, text_for_algebra
from lprl_workload.rollout.reward import RewardItem, make_scorer
from lprl_workload.rollout.reward_math import MathJudge
from lprl_workload.rollout.reward_text import dapo_right, last_boxed


@pytest.fixture(scope="module")
def judge() -> Iterator[MathJudge]:
    """Yield one judge: its processes import SymPy once."""
    found = MathJudge(limit_s=20.0)
    yield found
    found.close()


def test_an_answer_equals_its_label_where_mathematics_says_so(judge: MathJudge) -> None:
    verdicts = judge.judge([(response, label) for response, label, *_ in MATH])
    wrong = [(row[:2], verdict) for row, verdict in zip(MATH, verdicts, strict=True) if verdict != bool(row[2])]
    assert len(MATH) >= 80 and {row[2] for row in MATH} == {0, 1}
    assert wrong == []


def test_the_label_in_the_answers_place_is_judged_alike(judge: MathJudge) -> None:
    boxed = [(inner, label, right) for response, label, right, *_ in MATH if (inner := last_boxed(response)) is not None]
    turned = [(rf"\boxed{{{last_boxed(label) or label.replace('$', '')}}}", inner) for inner, label, _ in boxed]
    verdicts = judge.judge(turned)
    wrong = [(pair, verdict) for pair, (_, _, right), verdict in zip(turned, boxed, verdicts, strict=True) if verdict != bool(right)]
    assert len(turned) >= 80
    assert wrong == []


@pytest.mark.parametrize(("response", "label", "right"), [row[:3] for row in DAPO], ids=[f"{n}" for n in range(len(DAPO))])
def test_a_dapo_line_says_its_label_where_mathematics_says_so(response: str, label: str, right: int) -> None:
    assert dapo_right(response, label) == bool(right)
    assert make_scorer(Reward(type="dapo")).score([RewardItem("p", response, label)]) == [1.0 if right else -1.0]


def test_slimes_verdict_stands_where_mathematics_allows_it() -> None:
    # What slime calls right is right here too, unless it is wrong in mathematics.
    assert [row[:2] for row in DAPO if row[3] == 1 and row[2] == 1 and not dapo_right(row[0], row[1])] == []


@pytest.mark.parametrize(
    ("answer", "library_reads"),
    [
        (r"\frac{1}{2}", r"\frac{1}{2}"),
        ("1 1/2", "3/2"),
        ("1e3", "1000"),
        ("2.5e-3", "0.0025"),
        ("12 345", "12345"),
        ("x = 1 1/2", "x = 3/2"),
        ("x+1", "x+1"),
        ("0.50", "0.50"),
    ],
)
def test_the_library_gets_the_text_as_it_was_written_unless_it_would_misread_it(answer: str, library_reads: str) -> None:
    assert for_algebra(answer) == library_reads
    assert text_for_algebra("so, in 2020, 2 of 3") == "so, in 2020, 2 of 3"


@pytest.mark.parametrize("text", ["2 3", "1/0", "1 1/0", "", "x", "1e5000", "9" * 5000, "1.2.3", "--1", "1,23"])
def test_what_is_no_number_is_not_read_as_one(text: str) -> None:
    assert as_number(text) is None


def test_spaces_that_separate_stay() -> None:
    assert canonical(r" \left( x + 1 \right) \cdot y . ") == r"(x+1)\cdot y"
    assert canonical("2 3") == "2 3" and canonical("1, 234") == "1, 234"
    assert same_answer("2 3", "23") is False and same_answer("", "") is False

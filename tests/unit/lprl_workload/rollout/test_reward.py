import sys
import threading
import time
from pathlib import Path

import pytest

from lprl_api.errors import UserError
from lprl_api.spec.algorithm import Reward
from lprl_workload.rollout.answers import as_number, same_answer
from lprl_workload.rollout.reward import RewardItem, make_scorer
from lprl_workload.rollout.reward_math import MathJudge
from lprl_workload.rollout.reward_text import dapo_answer, last_boxed


def item(response: str, label: str | None = "1") -> RewardItem:
    return RewardItem("p", response, label)


def test_exact_strips_white_space_only() -> None:
    items = [item("7", "7"), item(" 7\n", "7"), item("77", "7"), item("", "7"), item("7.0", "7")]
    assert make_scorer(Reward(type="exact")).score(items) == [1, 1, 0, 0, 0]
    with pytest.raises(UserError, match="no label"):
        make_scorer(Reward(type="exact")).score([item("a", None)])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"so \boxed{7}", "7"),
        (r"\boxed{1} then \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{3} and \boxed{4", "3"),
        (r"\fbox{x}", "x"),
        ("none", None),
        (r"\boxed 5", None),
    ],
)
def test_last_boxed(text: str, found: str | None) -> None:
    assert last_boxed(text) == found


@pytest.mark.parametrize(
    ("found", "label", "same"),
    [
        ("1,234", "1234.0", True),
        ("3/4", "0.75", True),
        ("$ 5 $", "5", True),
        ("2", "3", False),
        (r"\frac12", "0.5", None),
        ("x +1", "x+1", True),
    ],
)
def test_same_answer(found: str, label: str, same: bool | None) -> None:
    assert same_answer(found, label) is same
    assert as_number("1/0") is None and as_number("9" * 5000) is None


MATH = [
    pytest.param(r"thus \boxed{42}", "42", 1.0, id="boxed-number"),
    pytest.param(r"\boxed{41}", "42", 0.0, id="wrong-number"),
    pytest.param(r"first \boxed{41}, no: \boxed{42}", "42", 1.0, id="last-box-counts"),
    pytest.param(r"\boxed{\frac{1}{2}}", "0.5", 1.0, id="fraction"),
    pytest.param(r"\boxed{\frac{\sqrt{8}}{2}}", r"\sqrt{2}", 1.0, id="algebra"),
    pytest.param("The answer is 42.", "42", 1.0, id="last-number"),
    pytest.param("I do not know", "42", 0.0, id="no-answer"),
    pytest.param("", "42", 0.0, id="empty"),
    pytest.param(r"\boxed{x+1}", r"1+x", 1.0, id="commuted"),
]


@pytest.fixture(scope="module")
def math_scorer():
    scorer = make_scorer(Reward(type="math", timeout_seconds=20))
    yield scorer
    scorer.close()


@pytest.mark.parametrize(("response", "label", "want"), MATH)
def test_math(math_scorer, response: str, label: str, want: float) -> None:
    assert math_scorer.score([item(response, label)]) == [want]


def test_math_works_in_a_thread_and_kills_what_does_not_end() -> None:
    judge = MathJudge(limit_s=3.0)
    hard, found = r"\boxed{9^{9^{9^{9}}}}", []
    try:
        judge.judge([(r"\boxed{x+1}", "1+x")])
        start = time.monotonic()
        thread = threading.Thread(target=lambda: found.extend(judge.judge([(hard, "x"), (r"\boxed{2x}", "x+x")])))
        thread.start()
        thread.join(90)
        assert found == [False, True] and time.monotonic() - start < 80
        assert judge.judge([(r"\boxed{y+2}", "2+y")]) == [True]
    finally:
        judge.close()


def test_deepscaler_needs_the_end_of_reasoning() -> None:
    scorer = make_scorer(Reward(type="deepscaler"))
    texts = [r"<think>\boxed{1}</think> \boxed{2}", r"\boxed{2}", r"<think>\boxed{2}</think> \boxed{1}", r"x ###Response \boxed{2}"]
    assert scorer.score([item(text, "2") for text in texts]) == [1, 0, 0, 1]
    scorer.close()


@pytest.mark.parametrize(
    ("response", "label", "want"),
    [
        ("steps\nAnswer: 34", "34", 1.0),
        ("Answer: $34$.", "34", 1.0),
        (r"Answer: \boxed{34}", "34", 1.0),
        ("Answer: 1,034", "1034", 1.0),
        ("Answer: 33\nAnswer: 34", "34", 1.0),
        ("Answer: 34\nAnswer: 33", "34", -1.0),
        ("34", "34", -1.0),
        ("Answer: 34" + " x" * 200, "34", -1.0),
    ],
)
def test_dapo(response: str, label: str, want: float) -> None:
    assert make_scorer(Reward(type="dapo")).score([item(response, label)]) == [want]
    assert dapo_answer("nothing") is None


def test_python_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_reward.py").write_text(
        "def length(prompt, response, label, metadata):\n    return len(response) + metadata.get('bonus', 0)\n"
        "def broken(prompt, response, label, metadata):\n    return float('nan')\nnumber = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    scorer = make_scorer(Reward(type="python", function="my_reward:length"))
    assert scorer.score([item("abc"), RewardItem("p", "ab", None, {"bonus": 5})]) == [3.0, 7.0]
    with pytest.raises(UserError, match="my_reward:broken returned nan, needs a finite number"):
        make_scorer(Reward(type="python", function="my_reward:broken")).score([item("a")])
    for function, words in (("my_reward:none", "none"), ("no_such_module:f", "no_such_module"), ("my_reward:number", "is a int")):
        with pytest.raises(UserError, match=words):
            make_scorer(Reward(type="python", function=function))
    with pytest.raises(UserError, match=r"data\.reward\.function: missing"):
        make_scorer(Reward(type="python"))
    sys.modules.pop("my_reward", None)

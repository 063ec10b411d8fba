r"""Degenerate responses of the longest length: their verdicts cost what their length does, in the driver, which no time limit guards.

Regular expressions hold the interpreter's lock, so a child process judges, under a limit of processor time that the kernel keeps.
"""

import json
import resource
import subprocess
import sys

import pytest

from lprl_workload.rollout.reward_math import MAX_RESPONSE_CHARACTERS
from lprl_workload.rollout.reward_text import last_boxed

CPU_S = 20
"""A pass over 20,000 characters takes milliseconds; what is quadratic or worse takes minutes."""
_JUDGE = """
import json, sys
from lprl_workload.rollout.reward_math import MathJudge
judge = MathJudge(1.0)
print(json.dumps(judge.judge(json.loads(sys.stdin.read()))))
judge.close()
"""


DEGENERATE = [
    ("Answer:", "-", "x", "B"),
    ("Answer: is", " \t", "x", "B"),
    ("Answer: A", "\t", "x", "B"),
    ("", r"\boxed{", "", "42"),
    ("", "\\boxed ", "", "42"),
    (r"\boxed{7}", "{", "", "42"),
    (r"\boxed{5", "1,", "}", "42"),
]
"""(beginning, what is said again and again, end, label)."""


def test_degenerate_responses_are_judged_in_one_pass() -> None:
    filled = [
        (begin + piece * ((MAX_RESPONSE_CHARACTERS - len(begin + end)) // len(piece)) + end, label)
        for begin, piece, end, label in DEGENERATE
    ]
    child = subprocess.run(
        [sys.executable, "-c", _JUDGE],
        input=json.dumps(filled),
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S)),
    )
    assert (child.returncode, child.stdout) == (0, json.dumps([False] * len(DEGENERATE)) + "\n"), child.stderr[-500:]


@pytest.mark.parametrize(
    ("text", "held"),
    [
        (r"\boxed{1} and \boxed{2", "1"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{a \boxed{b} c}", "b"),
        (r"\fbox {x} }", "x"),
        (r"} \boxed{{1}{2}}", "{1}{2}"),
        (r"\boxed 5 {6}", None),
        (r"\boxed{", None),
        (r"{\boxed{3}", "3"),
    ],
)
def test_the_last_whole_box_counts(text: str, held: str | None) -> None:
    assert last_boxed(text) == held

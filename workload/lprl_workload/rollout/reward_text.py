"""Finding the answer in a response, and comparing without a computer algebra system where that is enough (pure)."""

import re
from fractions import Fraction

TAIL_CHARACTERS = 300
"""DAPO looks for `Answer:` in this many last characters only."""
_ANSWER = re.compile(r"answer\s*:\s*([^\n]+)", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_RATIO = re.compile(r"([-+]?\d+)\s*/\s*(\d+)")
MAX_NUMBER_CHARACTERS = 200
"""Longer digit strings are compared as text only."""
_BOXED = ("\\boxed", "\\fbox")
_DROPPED = ("\\left", "\\right", "\\!", "\\,", "\\;", "\\ ", "$", "\\displaystyle")


def last_boxed(text: str) -> str | None:
    r"""Return what the last complete \boxed{...} (or \fbox) holds, braces balanced; None when there is none."""
    end = len(text)
    while True:
        start = max(text.rfind(command, 0, end) for command in _BOXED)
        if start < 0:
            return None
        inner = _braced(text, start)
        if inner is not None:
            return inner
        end = start


def _braced(text: str, start: int) -> str | None:
    opening = text.find("{", start)
    if opening < 0 or text[start:opening].strip() not in _BOXED:
        return None
    depth = 0
    for place in range(opening, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[opening + 1 : place]
    return None


def simplified(answer: str) -> str:
    """Return an answer without spacing and dollar signs: equal results mean equal answers."""
    for part in _DROPPED:
        answer = answer.replace(part, "")
    return "".join(answer.split()).rstrip(".")


def as_number(answer: str) -> Fraction | None:
    """Return the value of a plain decimal or ratio such as 1,234.5 or -3/4; None for anything else."""
    text = answer.strip().strip("$").strip().rstrip(".")
    if len(text) > MAX_NUMBER_CHARACTERS:
        return None
    if _NUMBER.fullmatch(text):
        return Fraction(text.replace(",", ""))
    ratio = _RATIO.fullmatch(text)
    if ratio and int(ratio[2]):
        return Fraction(int(ratio[1]), int(ratio[2]))
    return None


def same_answer(found: str, label: str) -> bool | None:
    """Return whether two answers are equal, None when that takes algebra."""
    if simplified(found) == simplified(label):
        return True
    left, right = as_number(found), as_number(label)
    return None if left is None or right is None else left == right


def after_thinking(response: str) -> str | None:
    """Return what follows the last `</think>` or `###Response`; None when neither is there (deepscaler)."""
    for mark in ("</think>", "###Response"):
        if mark in response:
            return response.rpartition(mark)[2]
    return None


def dapo_answer(response: str) -> str | None:
    r"""Return what the last `Answer:` line of the response's tail says, out of its \boxed{} or dollar signs."""
    found = _ANSWER.findall(response[-TAIL_CHARACTERS:])
    if not found:
        return None
    line = str(found[-1]).strip()
    return last_boxed(line) or line.strip("$*. ")

"""Finding the answer in a response (pure); answers.py compares."""

import re

from lprl_workload.rollout.answer_forms import latex
from lprl_workload.rollout.answers import canonical, same_answer

TAIL_CHARACTERS = 300
"""DAPO looks for `Answer:` in this many last characters only."""
_ANSWER = re.compile(r"answer\W{0,3}?:\s*([^\n]+)", re.IGNORECASE)
_BRACE = re.compile(r"(\\boxed|\\fbox)\s*+\{|[{}]")
"""A brace, with the command whose argument it opens."""
_MATH_MODE = re.compile(r"^\\[(\[]\s*(.*?)\s*\\[)\]]\.?$")
_FRACTION = re.compile(r"([-+]?)\\[dt]?frac ?(?:\{(\d+)\}|(\d)) ?(?:\{(\d+)\}|(\d))")
_LISTED = re.compile(r", (?!\d{3}(?!\d))")
"""A space after a comma that cannot be one of thousands."""
_EQUALS = re.compile(r"(?<![<>!\\])=")
_TYPESET = re.compile(r"\\(?:text|textbf|mathrm|mbox|overline)\s*\{([^{}]*)\}")
_DEGREES = re.compile(r"\^\s*(?:\{\s*)?\\circ(?:\s*\})?")
_DAPO_UNITS = re.compile(
    r"(?<=\d)\s*(?:cents|cm|degrees|digits|dollars|edges|feet|gm|hours|inches|integers|km|meals|meters|minutes|mph|multiples|points"
    r"|pounds|students|units|ways|m|s)\s*$"
)
"""Units that may follow a number on DAPO's answer line without changing it."""


def last_boxed(text: str) -> str | None:
    r"""Return what the last complete \boxed{...} (or \fbox) holds, braces balanced; None when there is none.

    Takes one pass: a response that opens boxes without end costs its length, not the square of it.
    """
    opened: list[tuple[int, int]] = []
    last = (-1, 0, 0)
    for found in _BRACE.finditer(text):
        if found[0] != "}":
            opened.append((found.start() if found[1] else -1, found.end()))
        elif opened:
            start, inner = opened.pop()
            last = max(last, (start, inner, found.start()))
    return text[last[1] : last[2]] if last[0] >= 0 else None


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
    return last_boxed(line) or _MATH_MODE.sub(r"\1", line.strip("`* ")).lstrip("$* ").rstrip("$*. ")


def dapo_right(response: str, label: str) -> bool:
    """Return whether the last `Answer:` line says the label: what follows its last equals sign, without units and typesetting."""
    answer = dapo_answer(response)
    if answer is None:
        return False
    return same_answer(_dapo_plain(answer), _dapo_plain(last_boxed(label) or label)) is True


def _dapo_plain(answer: str) -> str:
    r"""Return the text DAPO compares: `x = 42 \text{ cm}` says 42."""
    text = _EQUALS.split(latex(answer))[-1]
    text = _DEGREES.sub("", _TYPESET.sub(r"\1", text))
    text = _LISTED.sub(",", canonical(_DAPO_UNITS.sub("", canonical(text))))
    return f"{part[1]}{part[2] or part[3]}/{part[4] or part[5]}" if (part := _FRACTION.fullmatch(text)) else text

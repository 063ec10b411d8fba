"""Finding the answer in a response (pure); answers.py compares."""

import re

from lprl_workload.rollout.answers import as_number, canonical

TAIL_CHARACTERS = 300
"""DAPO looks for `Answer:` in this many last characters only."""
_ANSWER = re.compile(r"answer\s*:\s*([^\n]+)", re.IGNORECASE)
_BOXED = ("\\boxed", "\\fbox")
_EQUALS = re.compile(r"(?<![<>!\\])=")
_TYPESET = re.compile(r"\\(?:text|textbf|mathrm|mbox|overline)\s*\{([^{}]*)\}")
_DEGREES = re.compile(r"\^\s*(?:\{\s*)?\\circ(?:\s*\})?")
_DAPO_UNITS = re.compile(
    r"(?<=\d)\s*(?:cents|cm|degrees|digits|dollars|edges|feet|gm|hours|inches|integers|km|meals|meters|minutes|mph|multiples|points"
    r"|pounds|students|units|ways|m|s)\s*$"
)
"""Units that may follow a number on DAPO's answer line without changing it."""


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
    return last_boxed(line) or line.lstrip("$* ").rstrip("$*. ")


def dapo_right(response: str, label: str) -> bool:
    """Return whether the last `Answer:` line says the label: what follows its last equals sign, without units and typesetting."""
    answer = dapo_answer(response)
    if answer is None:
        return False
    found, wanted = _dapo_plain(answer), _dapo_plain(label)
    left, right = as_number(found), as_number(wanted)
    return bool(found) and (found == wanted or (left is not None and left == right))


def _dapo_plain(answer: str) -> str:
    r"""Return the text DAPO compares: `x = 42 \text{ cm}` says 42."""
    text = _EQUALS.split(answer)[-1]
    text = _DEGREES.sub("", _TYPESET.sub(r"\1", text))
    return canonical(_DAPO_UNITS.sub("", canonical(text)))

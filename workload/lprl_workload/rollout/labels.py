"""The value under data.labelKey -> what rewards compare with: a text, or several of which any is right."""

import json
import math
import re
from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

from lprl_api.errors import UserError
from lprl_workload.rollout.keys import as_mapping, named
from lprl_workload.rollout.texts import check_text, check_texts, is_nan, json_text, kind, number_text, quoted

Label = str | tuple[str, ...] | None
COMPARING = frozenset({"exact", "math", "deepscaler", "dapo"})
"""Rewards that compare with a label, so that every row needs one."""
MATHEMATICAL = COMPARING - {"exact"}
"""Of these, rewards for which JSON text is never an answer as such, so that it is read."""
ANSWER_KEYS = ("ground_truth", "answer", "label", "solution", "target", "final_answer")
"""Names of nested keys that hold an answer more often than others, told first."""

_FINAL = re.compile(r"(?:^|\n)[ \t]*####[ \t]*(\S[^\n]*?)\s*$")
"""The last line of a worked solution as GSM8K writes it."""


def label_of(value: Any, where: str, key: str, reward: str) -> Label:
    """Return a row's label.

    Args:
        value: what the row holds; None when it holds nothing.
        where: file, row and key, for errors.
        key: data.labelKey.
        reward: type of the reward. One that compares gets text (a number is written out), or texts of which any is right (a list);
            others get text as it is and everything else as JSON text, None for nothing.

    Raises:
        UserError: the reward compares, and the value is no answer.

    """
    if reward in COMPARING:
        return _answers(value, where, key, reward)
    if value is None or is_nan(value):
        return None
    check_texts(value, where)
    if isinstance(value, str):
        return value
    if isinstance(value, Decimal | date | time | timedelta):
        return str(value)
    return json_text(value, where)


def _answers(value: Any, where: str, key: str, reward: str) -> str | tuple[str, ...]:
    if isinstance(value, str) and reward in MATHEMATICAL:
        value = _read(value)
    mapping = value if isinstance(value, Mapping) else None
    if mapping is not None:
        raise UserError(f"{where}: found a mapping, which no response can equal", _nested(mapping, key))
    if isinstance(value, str | int | float | Decimal):
        return _answer(value, where, reward)
    if not isinstance(value, list) or not value:
        raise UserError(f"{where}: found {kind(value)}, reward {reward!r} compares with a text, a number or a list of these")
    found = [_answer(part, f"{where}, entry {place} of its list", reward) for place, part in enumerate(value)]
    return found[0] if len(set(found)) == 1 else tuple(dict.fromkeys(found))


def _read(text: str) -> Any:
    """Return what JSON text of a mapping, or of a list of texts, holds; the text itself when it is neither."""
    if (mapping := as_mapping(text)) is not None:
        return mapping
    if not text.lstrip().startswith('["'):
        return text
    try:
        parts = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return parts if isinstance(parts, list) and all(isinstance(part, str) for part in parts) else text


def _answer(value: Any, where: str, reward: str) -> str:
    if isinstance(value, bool):
        raise UserError(
            f"{where}: found {json.dumps(value)}, needs text", "write the answer as the response is to say it, such as yes or no"
        )
    if isinstance(value, int | float | Decimal):
        if not isinstance(value, int) and not math.isfinite(value):  # an int of 309 digits is no float
            raise UserError(f"{where}: found {value}, needs a finite number or text")
        return number_text(value)
    if not isinstance(value, str):
        raise UserError(f"{where}: found {kind(value)} ({quoted(value)}), reward {reward!r} compares with text or a number")
    if not value.strip():
        raise UserError(f"{where}: empty, reward {reward!r} could only be 0", "leave the row out, or correct its label")
    final = _FINAL.search(value) if reward in MATHEMATICAL else None
    return check_text(final[1] if final else value, where)


def _nested(mapping: Mapping[str, Any], key: str) -> str:
    """Return which nested keys could be meant, likely ones first."""
    keys = sorted(named(mapping), key=lambda name: (name.rpartition(".")[2] not in ANSWER_KEYS, name))
    return f"name the key of the answer: data.labelKey {' or '.join(f'{key}.{name}' for name in keys[:8])}" if keys else "it is empty"

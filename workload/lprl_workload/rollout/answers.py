r"""Comparing two answers as text and as numbers, exactly, and writing what a computer algebra system would misread (pure).

White space separates: `1 1/2` is 3/2, `2 3` is no number. Decimals are read as the numbers they say, so 1.0000001 is not 1.
"""

import re
from decimal import Decimal
from fractions import Fraction

from lprl_workload.rollout.answer_forms import choice, chosen, latex, percentage, plain, product, same_time, several, without_unit
from lprl_workload.rollout.answer_rewrites import SCALES, intervals, same_letters, scaled, union

MAX_NUMBER_CHARACTERS = 200
"""Longer digit strings are compared as text only."""
MAX_EXPONENT = 400
"""Largest power of ten of scientific notation that is written out."""
_NOISE = re.compile(r"\\(?:left|right|displaystyle)(?![A-Za-z])|\\!|(?<!\\)\$|\\\$")
_GROUP_GAP = re.compile(r"(?<=\d)(?:\\,|~|\\ )(?=\d{3}(?!\d))")
_SPACING = re.compile(r"\\[,;: ]|\\q?quad(?![A-Za-z])|~|\s+")
_LOOSE = re.compile(r" (?=[^A-Za-z0-9.,])|(?<=[^A-Za-z0-9.,]) ")
"""A space beside an operator or bracket, which says nothing; one between letters or digits does."""
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+)(?:\.\d*)?|\.\d+"
_DECIMAL = re.compile(rf"([-+]?)({_DIGITS})(?:[eE]([-+]?\d{{1,4}})|(?:\\times|\\cdot|\*|×) ?10\^(?:\{{([-+]?\d{{1,4}})\}}|(\d)))?")
_RATIO = re.compile(r"([-+]?\d+)/(\d+)")
_MIXED = re.compile(r"([-+]?)(\d+) (\d+)/(\d+)")
_PLAIN = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[-+]?\d+/\d+")
"""Numbers that algebra systems read as they are meant."""
_IN_TEXT = re.compile(
    r"(?<![\w.,/^\\])(?:\d+ \d+/\d+(?!\d|\.\d)|(?:\d+(?:\.\d*)?|\.\d+)[eE][-+]?\d{1,3}(?!\w)|\d{1,3}(?: \d{3})+(?![\d/])"
    rf"|\d+(?:\.\d+)? (?:{'|'.join(SCALES)})s?(?!\w))",
)
_STUCK = re.compile(rf"(?<![\w.^])\d(?:[\d.]|,(?=\d)){{0,{MAX_NUMBER_CHARACTERS}}}+ \d")
_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|mathrm|mbox)\s*\{([^{}]*)\}")
_UNITS = {
    **dict.fromkeys(("mm", "cm", "dm", "m", "km", "in", "ft", "mi", "yd"), "length"),
    **dict.fromkeys(("mg", "g", "kg", "t", "lb", "oz"), "mass"),
    **dict.fromkeys(("ms", "s", "min", "h", "d"), "time"),
}
_UNIT = re.compile(r"[\d}]\s*(?:\\(?:text|mathrm|mbox)\s*\{\s*([A-Za-z]+)\s*\}|([A-Za-z]+))(?:\^(?:(\d)|\{(\d)\}))?$")


def canonical(answer: str) -> str:
    """Return an answer without what does not change it: dollar signs, sizing commands, spaces that separate nothing, a full stop."""
    text = _GROUP_GAP.sub("", latex(answer).replace("{,}", ","))
    text = _SPACING.sub(" ", _NOISE.sub("", text)).strip()
    text = re.sub(r" +", " ", _LOOSE.sub("", text)).rstrip(". ")
    while len(text) > 1 and text[0] == "{" and text.find("}") == len(text) - 1:
        text = text[1:-1].strip()
    return text


def as_number(answer: str) -> Fraction | None:
    r"""Return the value of 1,234.5, .5, 1e3, 2\times 10^{3}, -3/4, 1 1/2, 12 345 or 2 million; None for anything else."""
    text = canonical(answer)
    if len(text) > MAX_NUMBER_CHARACTERS:
        return None
    if _DECIMAL.fullmatch(text):
        return _decimal(text)
    found = scaled(plain(text))
    if found is None:
        return _ratio(text)
    number = as_number(found[0])
    return None if number is None else number * found[1]


def _decimal(text: str) -> Fraction | None:
    found = _DECIMAL.fullmatch(text)
    assert found is not None
    sign, digits, *exponents = found.groups()
    power = int(next((e for e in exponents if e), "0"))
    if abs(power) > MAX_EXPONENT:
        return None
    value = Fraction(Decimal(re.sub("[, ]", "", digits))) * Fraction(10) ** power
    return -value if sign == "-" else value


def _ratio(text: str) -> Fraction | None:
    ratio = _RATIO.fullmatch(text)
    if ratio and int(ratio[2]):
        return Fraction(int(ratio[1]), int(ratio[2]))
    mixed = _MIXED.fullmatch(text)
    if mixed and int(mixed[4]):
        value = int(mixed[2]) + Fraction(int(mixed[3]), int(mixed[4]))
        return -value if mixed[1] == "-" else value
    return None


def same_answer(found: str, label: str) -> bool | None:
    """Return whether two answers are equal, None when that takes algebra."""
    left, right = canonical(found), canonical(label)
    if not left or not right:
        return False
    if left == right or plain(left) == plain(right) or same_time(left, right):
        return True
    listed = same_letters(plain(left), plain(right))
    if listed is not None or _cases_differ(left, right):
        return listed or False
    letters = [(choice(a), chosen(b)) for a, b in ((left, right), (right, left))]
    if any(all(pair) for pair in letters):
        return any(a == b for a, b in letters if a and b)
    numbers = as_number(found), as_number(label)
    if None not in numbers:
        return numbers[0] == numbers[1]
    for number, other in zip(numbers, (right, left), strict=True):
        verdict = None if number is None else False if several(other) else _measured(number, other)
        if verdict is not None:
            return verdict
    if _words_differ(left, right) or _units_differ(left, right):
        return False
    if any(number is None and _unreadable(text) for number, text in zip(numbers, (left, right), strict=True)):
        return False
    return None


def _measured(number: Fraction, other: str) -> bool | None:
    """Return whether a number with a unit or per cent says `number`; None when the other is none."""
    percent = percentage(other)
    bare = percent if percent is not None else without_unit(other)
    value = as_number(bare) if bare is not None else None
    return None if value is None else number == value or (percent is not None and number * 100 == value)


def _unreadable(text: str) -> bool:
    """Return whether digits stand beside digits with nothing between them, which algebra systems add or multiply."""
    return bool(_STUCK.search(_IN_TEXT.sub("1", _TEXT_COMMAND.sub("", text))))


def _word(text: str) -> str | None:
    inner = _TEXT_COMMAND.fullmatch(text)
    word = (inner[1] if inner else text).strip().lower()
    return word if re.fullmatch(r"[a-z]+(?:[ -][a-z]+)*", word) and len(word) > 1 else None


def _words_differ(left: str, right: str) -> bool:
    """Return whether two words are different; an algebra system takes `stop` and `post` for the same product.

    Letters in alphabetical order (`abc`) are taken for a product, as are two letters.
    """
    a, b = _word(left), _word(right)
    if a is None or b is None or a == b:
        return False
    typeset = "\\" in left or "\\" in right
    return typeset or any(len(word) > 3 and list(word) != sorted(word) for word in (a, b))


def _cases_differ(left: str, right: str) -> bool:
    """Return whether two letters differ in their case: `e` and `E` are two symbols, which algebra systems read as one."""
    a, b = plain(left), plain(right)
    return len(a) == len(b) == 1 and a != b and a.lower() == b.lower()


def _units_differ(left: str, right: str) -> bool:
    """Return whether both name a unit of the same quantity, and not the same one."""
    a, b = (_unit(text) for text in (left, right))
    return a is not None and b is not None and a != b and _UNITS[a[0]] == _UNITS[b[0]]


def _unit(text: str) -> tuple[str, str] | None:
    """Return unit and power."""
    found = _UNIT.search(text)
    name = (found[1] or found[2]) if found else None
    return (name, found[3] or found[4] or "1") if found and name in _UNITS else None


def for_algebra(answer: str) -> str:
    """Return an answer as an algebra system reads it as meant: 1e3 as 1000, 1 1/2 as 3/2; anything else as it was written."""
    number = as_number(answer)
    if number is None:
        return product(union(intervals(text_for_algebra(answer))))
    if _PLAIN.fullmatch(answer.strip().strip("$").strip()):
        return answer
    return _written_out(number, answer)


def text_for_algebra(text: str) -> str:
    """Return running text with such numbers written out."""
    return _IN_TEXT.sub(_rewritten, latex(text))


def _rewritten(found: re.Match[str]) -> str:
    number = as_number(found[0])
    return found[0] if number is None else _written_out(number, found[0])


def _written_out(number: Fraction, answer: str) -> str:
    if number.denominator == 1:
        return str(number.numerator)
    if "/" in answer:
        return f"{number.numerator}/{number.denominator}"
    # Decimals stay decimals: they are compared as roundings.
    return format(Decimal(number.numerator) / Decimal(number.denominator), "f")

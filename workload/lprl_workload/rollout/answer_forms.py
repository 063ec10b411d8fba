r"""Ways one answer is written: Unicode signs as LaTeX, a number's unit, a choice of several, as text (pure)."""

import re
import unicodedata

from lprl_workload.rollout.answer_rewrites import SCALES

_SIGNS = {
    "−": "-", "‐": "-", "‑": "-", "π": r"\pi ", "θ": r"\theta ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "×": r"\times ",
    "·": r"\cdot ", "⋅": r"\cdot ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "±": r"\pm ",
    "°": r"^\circ ", "º": r"^\circ ",
}  # fmt: skip
_SIGN = re.compile("|".join(_SIGNS))
_COMMAND = re.compile(r"\\(degree|varnothing|lbrace|rbrace)(?![A-Za-z])|(?<=\d)\^(?:o|\{o\})(?![\w{])")
_COMMANDS = {"degree": r"^\circ", "varnothing": r"\emptyset", "lbrace": r"\{", "rbrace": r"\}"}
_DASH = re.compile(r"–(?=\S)|(?<=\S)–|^—(?=\S)")
"""A dash that is a minus; between two spaces it is a pause."""
_VULGAR = re.compile(r"(\d?)([¼-¾⅐-⅞])")
_RAISED = re.compile("(⁻?)([⁰¹²³⁴-⁹]+)")
_ROOT = re.compile(r"√ ?(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+(?:\.\d+)?|[A-Za-z]))")
_WIDE = re.compile("[！-～]")
_REPEATING = re.compile(r"(?<![\w.])(\d+)\.(\d*)\\(?:overline|bar|dot) ?(?:\{(\d+)\}|(\d))(?!\d)")
_TYPESET = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|boldsymbol|mbox)\s*\{((?:[^{}\\]|\\.)*)\}")
_MEASURED = re.compile(r"([-+]?(?:[\d.,/]|(?<=\d) (?=\d))*\d)(?:\^\{?\\circ\}?)? ?([A-Za-z][A-Za-z ./^{}\d-]*)")
_UNIT_WORD = re.compile(r"([A-Za-z]+)(?:\^(?:\d|\{-?\d\}))?")
_SHORT = frozenset(
    {
        "mm", "cm", "dm", "m", "km", "in", "ft", "mi", "yd", "mg", "g", "kg", "t", "lb", "oz", "ms", "s", "min", "h", "hr", "d", "ml", "l",
        "L", "mL", "kW", "W", "V", "A", "J", "N", "C", "F", "K", "Hz",
    }
)  # fmt: skip
_NO_UNIT = frozenset(
    {
        "or", "and", "to", "more", "less", "most", "least", "at", "than", "percent", "dozen", "hundred", "thousand", "million", "billion",
        "trillion", "half", "halves", "third", "thirds", "fourths", "fifths", "sixths", "eighths", "tenths", "hundredths", "thousandths",
        "factorial", "squared", "cubed", "mod", "times", "plus", "minus", "over", "sqrt", "log", "ln", "exp", "base", "binary",
        "infinity", "infty", "inf", "below", "not", "negative", "zero", "nan",
        "alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "vartheta", "iota", "kappa", "lambda", "mu",
        "nu", "xi", "omicron", "pi", "rho", "sigma", "tau", "upsilon", "phi", "varphi", "chi", "psi", "omega",
    }
) | {
    f"{before}{name}{after}"
    for before in ("", "arc", "ar", "a")
    for name in ("sin", "cos", "tan", "cot", "sec", "csc", "cosec")
    for after in ("", "h")
} - {"sec"}  # fmt: skip
"""Words after a number that make another one of it, or an expression."""
_UNIT_RATIO = re.compile(r" ?\\[dt]?frac ?\{ ?([A-Za-z]+) ?\} ?\{ ?([A-Za-z]+(?:\^\d)?) ?\}$")
_FACTOR = re.compile(r"\d[A-Za-z](?:\^(?:\d|\{\d\}))?$")
_SEVERAL = re.compile(r"\d\s*\\(?:text|mbox|mathrm|textrm)\s*\{(?!\s*x\s*\})[^{}]*[A-Za-z][^{}]*\}\s*\d")
_TIME = re.compile(r"(\d{1,2})(?::(\d\d))?([ap]m)?")
_PRODUCT = re.compile(r"((?=.*[\d^\\\\]).*[\d}\s])([A-Za-z]{1,3})", re.DOTALL)
_CHOICE = re.compile(r"\(?([A-J])[).]?")
_CHOSEN = re.compile(
    r"(?:(?:[Oo]ption|[Cc]hoice|[Aa]nswer) ?:? ?)?(?:\(([A-J])\)|([A-J])(?:\)|[.:](?=[ \d]|$))|(?<=[a-z] )([A-J])(?= ?$))(?!\S*=)(.*)",
    re.DOTALL,
)
_FURTHER = re.compile(r"\([A-J]\)|(?<!\w)[A-J][).:]|^ ?(?:[,;&]|and\b|or\b)")
_SAID = re.compile(
    r"(?:[Aa]nswer|ANSWER|[Oo]ption|[Cc]hoice)\W*+(?:(?:is|are)\W*+)?(?:(?:[Oo]ption|[Cc]hoice)\W*+)?"
    r"(?<!\w)([A-J])(?:\)|(?=[.,:;*$}\]]|[^\S\n]*+(?:\n|$)))(?!\w)"
)
"""What separates is possessive: a row of dashes is read once, not once for each way of sharing it out."""


def latex(text: str) -> str:
    r"""Return a text with Unicode's signs as LaTeX has them (`45°` is `45^\circ`), and repeating decimals as fractions."""
    if not text.isascii():
        text = _WIDE.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
        text = _VULGAR.sub(_fraction, _SIGN.sub(lambda found: _SIGNS[found[0]], _DASH.sub("-", text)))
        text = _RAISED.sub(lambda found: f"^{{{'-' if found[1] else ''}{unicodedata.normalize('NFKC', found[2])}}}", text)
        text = _ROOT.sub(lambda found: rf"\sqrt{{{found[1] or found[2] or found[3]}}}", text)
    return _REPEATING.sub(_repeating, _COMMAND.sub(lambda found: _COMMANDS[found[1] or "degree"], text))


def _fraction(found: re.Match[str]) -> str:
    over, _, under = unicodedata.normalize("NFKC", found[2]).partition("⁄")
    return f"{found[1]} {over}/{under}" if found[1] else f"{over}/{under}"


def _repeating(found: re.Match[str]) -> str:
    whole, fixed, period = found[1], found[2], found[3] or found[4]
    if len(whole + fixed + period) > 60:
        return found[0]
    under = (10 ** len(period) - 1) * 10 ** len(fixed)
    return rf"\frac{{{int(whole + fixed + period) - int(whole + fixed)}}}{{{under}}}"


def plain(text: str) -> str:
    r"""Return a text without its typesetting: `\text{5:30 PM}` is `5:30 PM`."""
    return re.sub(r" +", " ", re.sub(r"\^\{(\w)\}", r"^\1", _TYPESET.sub(r"\1", text))).strip()


def without_unit(text: str) -> str | None:
    r"""Return the number of `72 clips`, `36 \text{ cm}^2`, `60 \frac{km}{h}` or `€50`; None where no unit or word of a thing is there.

    A single letter that touches its number (`3t`) is a factor.
    """
    if _FACTOR.search(text):
        return None
    text = _UNIT_RATIO.sub(r" \1/\2", plain(text)).replace(r"\$", "")
    bare = text.strip("€£¥₹ ")
    if bare != text:
        return bare
    found = _MEASURED.fullmatch(text)
    if not found:
        return None
    words = [word for word in re.split(r"[ /.-]+", found[2]) if word]
    if (scale := words[0].removesuffix("s")) in SCALES:
        return f"{found[1]} {scale}" if all(map(_is_unit, words[1:])) else None
    return found[1] if 0 < len(words) <= 6 and all(map(_is_unit, words)) else None


def _is_unit(word: str) -> bool:
    found = _UNIT_WORD.fullmatch(word)
    return found is not None and (found[1] in _SHORT or (found[1].lower() not in _NO_UNIT and len(found[1]) > 2) or found[1] in ("of", "a"))


def percentage(text: str) -> str | None:
    r"""Return what stands before the sign of `12.5\%` or `20 %`; None where there is none."""
    found = re.fullmatch(r"(.*?) ?\\?%", plain(text))
    return found[1] if found else None


def product(text: str) -> str:
    r"""Return an expression such that math-verify does not take its last letters for a unit: it reads `2ab` as 2, `r^2s` as `r^2`."""
    found = _PRODUCT.fullmatch(text.rstrip())
    if found is None or (len(found[2]) > 1 and found[2] in _SHORT):
        return text
    letters = re.search("[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", _TYPESET.sub("", found[1])))
    touches = len(found[2]) == 1 and re.search(r"[\d}]$|\\[A-Za-z]+ +$", found[1])
    return f"{text.rstrip()}+0" if letters or touches or found[2] not in _SHORT else text


def several(text: str) -> bool:
    r"""Return whether words stand between two numbers, as in `3 \text{ boys and } 4 \text{ girls}`, of which math-verify reads one."""
    return _SEVERAL.search(text) is not None


def same_time(left: str, right: str) -> bool:
    """Return whether both say one time of day: `5:30 p.m.` and `5:30 PM`, `7 AM` and `7:00 AM`; one of them may leave the half open."""
    a, b = (_TIME.fullmatch(re.sub(r"[ .]", "", plain(text)).lower()) for text in (left, right))
    if not a or not b or not (a[3] or b[3]):
        return False
    return (int(a[1]), a[2] or "00") == (int(b[1]), b[2] or "00") and (a[3] or b[3]) == (b[3] or a[3])


def choice(text: str) -> str | None:
    r"""Return the letter of an answer that is one of several: `B`, `(B)`, `\text{B}`; None for anything else."""
    found = _CHOICE.fullmatch(plain(text))
    return found[1] if found else None


def chosen(text: str) -> str | None:
    """Return the letter that an answer names before it says what stands there: `(B) 24`, `Option B`; None where there is none, or two."""
    found = _CHOSEN.fullmatch(plain(text))
    return None if found is None or _FURTHER.search(found[4]) else found[1] or found[2] or found[3]


def said_choice(response: str) -> str | None:
    """Return the letter that a response without a box says last: `The answer is (B).`"""
    found = _SAID.findall(plain(response))
    return found[-1] if found else None

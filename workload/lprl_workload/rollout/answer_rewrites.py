r"""What a computer algebra system does not know, written as it does: open brackets of other countries, `or`, `million` (pure)."""

import re

SCALES = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
"""Words after a number that multiply it."""
_SCALED = re.compile(rf"(.*[\d}}]) ?({'|'.join(SCALES)})s?")
_BOUND = r"([^\[\](),;]+)"
_INTERVAL = re.compile(rf"([\[\](]){_BOUND}[,;]{_BOUND}([\[\])])")
_OR = re.compile(r"(?:\\(?:text|mathrm|mbox)\s*\{\s*(?:,\s*)?or\s*\}|\\(?:lor|vee)(?![A-Za-z])|(?<![A-Za-z\\])or(?![A-Za-z]))")
_RELATION = re.compile(r"(<=?|>=?|\\(?:leq?|geq?|lt|gt|leqslant|geqslant)(?![A-Za-z]))")
_OPEN_UP = {"<": ")", r"\lt": ")", ">": "(", r"\gt": "("}
_TYPESET_LETTER = re.compile(r"\(?([A-J])\)?")
_LETTER_LIST = re.compile(r" ?(?:,|;|&|\band\b) ?(?:and )?|(?<=\)) ?(?=\()")
_COMPACT = re.compile(r"[A-J]{2,10}")


def scaled(text: str) -> tuple[str, int] | None:
    """Return the number and the factor of `2 million` or `3 dozen`; None for anything else."""
    found = _SCALED.fullmatch(text)
    return (found[1].strip(), SCALES[found[2]]) if found else None


def intervals(text: str) -> str:
    """Return a text with `]0,1[`, where the bracket turned outwards says open, as `(0,1)`."""

    def turned(found: re.Match[str]) -> str:
        opening, closing = ("(" if found[1] == "]" else found[1]), (")" if found[4] == "[" else found[4])
        outwards = found[1] == "]" or found[4] == "["
        return f"{opening}{found[2]},{found[3]}{closing}" if outwards else found[0]

    return _INTERVAL.sub(turned, text)


def union(text: str) -> str:
    r"""Return `x<-1 or x>3` as the union of the intervals of its one letter; anything else as it was written."""
    parts = _OR.split(text)
    if len(parts) < 2:
        return text
    solved = [_solutions(part.strip(" ,$")) for part in parts]
    letters = {found[0] for found in solved if found}
    if len(letters) != 1 or None in solved:
        return text
    return r"\cup ".join(found[1] for found in solved if found)


def _solutions(text: str) -> tuple[str, str] | None:
    """Return the letter and the interval of an inequality or a chain of two; None for anything else."""
    terms = _RELATION.split(text)
    sides, signs = [side.strip() for side in terms[::2]], terms[1::2]
    if "" in sides:
        return None
    if len(sides) == 2 and _is_letter(sides[0]):
        return sides[0], _ray(signs[0], sides[1])
    if len(sides) == 2 and _is_letter(sides[1]):
        return sides[1], _ray(_mirrored(signs[0]), sides[0])
    if len(sides) == 3 and _is_letter(sides[1]) and _is_up(signs[0]) == _is_up(signs[1]):
        low, high, first, last = (sides[0], sides[2], *signs) if not _is_up(signs[0]) else (sides[2], sides[0], *reversed(signs))
        return sides[1], f"{'(' if first in _OPEN_UP else '['}{low},{high}{')' if last in _OPEN_UP else ']'}"
    return None


def _is_letter(text: str) -> bool:
    return re.fullmatch("[A-Za-z]", text) is not None


def _is_up(sign: str) -> bool:
    """Return whether a sign says more than."""
    return sign[0] == ">" or sign.startswith(r"\g")


def _mirrored(sign: str) -> str:
    return sign.translate(str.maketrans("<>", "><")) if sign[0] in "<>" else rf"\{'l' if sign[1] == 'g' else 'g'}{sign[2:]}"


def _ray(sign: str, bound: str) -> str:
    if _is_up(sign):
        return rf"{'(' if sign in _OPEN_UP else '['}{bound},\infty)"
    return rf"(-\infty,{bound}{')' if sign in _OPEN_UP else ']'}"


def same_letters(left: str, right: str) -> bool | None:
    """Return whether `ACD` says the choices that a list like `A, C, D` or `(A) and (C)` does; None where these are not one of each.

    Letters in alphabetical order are a set, others (an order that was asked for) a sequence.
    """
    for compact, listed in ((left, right), (right, left)):
        letters = [_TYPESET_LETTER.fullmatch(part.strip()) for part in _LETTER_LIST.split(listed)]
        if _COMPACT.fullmatch(compact) and len(set(compact)) == len(compact) and len(letters) > 1 and all(letters):
            named = [found[1] for found in letters if found]
            return list(compact) == (sorted(named) if list(compact) == sorted(compact) else named)
    return None

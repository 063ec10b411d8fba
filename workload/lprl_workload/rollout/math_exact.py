"""A second look at what math-verify calls equal: it rounds at an absolute place, so that 1/2^98 equals 1/2^99 there."""

from itertools import permutations
from typing import Any

TOLERANCE = 1e-6
"""Relative difference up to which a decimal counts as a rounding of an exact value: 0.3333333 for 1/3."""
DIGITS = 60
"""Decimal digits in which exact values are compared where algebra does not decide."""
MAX_PERMUTED = 5
"""Elements of a set up to which every pairing is tried; larger ones are compared in order of value."""


def confirmed(gold: Any, found: Any) -> bool:
    """Return whether two SymPy objects that math-verify calls equal are equal as numbers too.

    What holds no pair of numbers (strings, symbols) is believed.
    """
    from sympy import Basic, Interval
    from sympy.core.relational import Relational

    if not isinstance(gold, Basic) or not isinstance(found, Basic):
        return True
    if isinstance(gold, Relational) and isinstance(found, Relational) and (gold.func, gold.lhs) == (found.func, found.lhs):
        return confirmed(gold.rhs, found.rhs)
    parts = _elements(gold), _elements(found)
    if parts[0] is not None and parts[1] is not None and len(parts[0]) == len(parts[1]):
        ordered = isinstance(gold, Interval) or len(parts[0]) > MAX_PERMUTED
        orders = [parts[1]] if ordered else permutations(parts[1])
        return any(all(confirmed(a, b) for a, b in zip(parts[0], order, strict=True)) for order in orders)
    try:
        return not (_is_number(gold) and _is_number(found)) or _close(gold, found)
    except Exception:  # SymPy may raise anything; then nothing speaks against the first verdict
        return True


def _elements(value: Any) -> list[Any] | None:
    from sympy import FiniteSet, Interval, Tuple

    if isinstance(value, Interval):
        return [value.start, value.end]
    if isinstance(value, FiniteSet | Tuple):
        return list(value.args) if isinstance(value, Tuple) else sorted(value.args, key=str)
    return None


def _is_number(value: Any) -> bool:
    return not value.free_symbols and bool(getattr(value, "is_number", False)) and value.is_finite is not False


def _close(gold: Any, found: Any) -> bool:
    """Compare two numbers: relatively where one is a decimal, exactly otherwise."""
    from sympy import Float

    if gold.has(Float) or found.has(Float):
        return _percent(gold, found) or _relative(gold.doit(), found.doit(), TOLERANCE)
    if _percent(gold, found):
        return True
    difference = (gold - found).doit()
    if difference.is_Rational:
        return bool(difference == 0)
    return _relative(gold.doit(), found.doit(), 10.0 ** (20 - DIGITS))


def _percent(gold: Any, found: Any) -> bool:
    """Return whether one is a percentage of the other's number: 50 % is accepted for 50, as math-verify does."""
    from sympy import Rational, UnevaluatedExpr

    hundredth = UnevaluatedExpr(Rational(1, 100))
    bare = [value.subs(hundredth, 1) if value.has(UnevaluatedExpr) else value for value in (gold, found)]
    return bare != [gold, found] and bool(bare[0] == bare[1])


def _relative(a: Any, b: Any, tolerance: float) -> bool:
    left, right = a.evalf(DIGITS), b.evalf(DIGITS)
    largest = max(abs(left), abs(right))
    return bool(largest == 0) or bool(abs(left - right) <= tolerance * largest)

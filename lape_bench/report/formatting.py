"""How every report writes a percentage, a p-value, a count and a list."""

import math
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

LEAST_P = 1e-4
LEVEL = 0.05  # of significance
MOST_NAMED = 3  # boards, systems or pairs in one footnote; more are counted
DIGITS = 10  # significant digits of a percentage; further digits come from binary fractions


def percent(share: float, digits: int = 2, signed: bool = False) -> str:
    """Write a share as a percentage, without the sign %.

    Halves are rounded away from zero, as a reader does by hand: 0.9225 and 0.9025 are 92.3 and 90.3. Python's own
    rounding takes whichever side the nearest binary fraction lies on, or the even digit.

    Args:
        share: 1 for 100 %; NaN if there is none.
        digits: digits after the point.
        signed: whether to write a plus sign, as for a difference.

    Returns:
        The number, or an empty string for NaN. A value that rounds to 0 has no sign.
    """
    if math.isnan(share):
        return ""
    exact = Decimal(f"{100 * share:.{DIGITS}f}")
    rounded = exact.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP) + 0  # -0.00 becomes 0.00
    return f"{rounded:+f}" if signed and rounded else f"{rounded:f}"


def points(share: float) -> str:
    """Write what a user gave in percentage points, such as a margin, with all its digits."""
    return f"{100 * share:.6g}"


def p_value(p: float | None) -> str:
    """Write a p-value: below `LEAST_P` only that it is, since no test here is exact so far out; nothing for None or NaN.

    A p just above `LEVEL` has as many digits as show that it is above, at most `DIGITS`.
    """
    if p is None or math.isnan(p):
        return ""
    if p < LEAST_P:
        return f"< {LEAST_P}"
    texts = [f"{p:.{digits}g}" for digits in range(2, DIGITS + 1)]
    return next((text for text in texts if (float(text) <= LEVEL) == (p <= LEVEL)), texts[-1])


def count(number: int, noun: str) -> str:
    """Write a number and what it counts: 1 seed, 3 seeds."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def known_count(number: Any) -> str:
    """Write a whole number, or that it is unknown if it is None or missing in a table."""
    import pandas as pd  # slow to import, and every command imports this module

    return "unknown" if pd.isna(number) else f"{number:,}"


def first_few(items: Sequence[str], most: int = MOST_NAMED) -> str:
    """Join the first few items, and count the rest."""
    more = [f"{len(items) - most} more"] if len(items) > most else []
    return "; ".join([*items[:most], *more])


def join_list(names: Sequence[object]) -> str:
    """Write a list, of one at least: a, b and c."""
    *others, last = map(str, names)
    return f"{', '.join(others)} and {last}" if others else last

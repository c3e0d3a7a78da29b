"""Numbers as a person says them: "about 43 of 100 samples (40 to 46)", "8/255".

>>> from vambrace.core.findings import Interval
>>> share(0.4312, 1000, "samples stay right", Interval(low=0.4, high=0.462, method="wilson"))
'about 43 of 100 samples stay right (40 to 46)'
>>> share(7 / 12, 12, "samples", None), share(1.0, 60, "samples", None)
('7 of 12 samples', 'all 60 samples')
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vambrace.core.findings import Interval

__all__ = ["between", "listed", "number", "radius", "share"]

_MANY = 50  # from here on a share is said as a part of 100, below as the count that it is


def share(value: float, n: int, what: str, interval: Interval | None) -> str:
    """A share of n things with its interval, which is in parts of 100.

    Parts are whole numbers, with one decimal for all of them where any is below 10 or above 90.
    """
    parts = [100 * each for each in ((value,) if interval is None else (value, interval.low, interval.high))]
    digits = 0 if all(10 <= part <= 90 for part in parts) else 1
    middle, *ends = [_part(part, digits) for part in parts]
    if value in (0.0, 1.0):
        said, unit = f"{'all' if value else 'none of'} {n:,} {what}", " of 100"
    elif n >= _MANY:
        said, unit = f"about {middle} of 100 {what}", ""
    else:
        said, unit = f"{round(value * n)} of {n} {what}", " of 100"
    return f"{said} ({ends[0]} to {ends[1]}{unit})" if ends else said


def _part(part: float, digits: int) -> str:
    """A part of 100 in words; "100" and "0" are said only of all and of none."""
    said = f"{part:.{digits}f}".removesuffix(".0")
    if float(said) in {0.0, 100.0} and part not in {0.0, 100.0} and digits < 6:
        return _part(part, digits + 1)
    return said.rstrip("0").rstrip(".") if "." in said and digits > 1 else said


def between(interval: Interval | None) -> str:
    """The ends of an interval in brackets, with a space before; nothing where there is none."""
    return "" if interval is None else f" ({number(interval.low)} to {number(interval.high)})"


def number(value: float) -> str:
    """Three significant digits: "0.0123", "4.2", "1,234"."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def radius(eps: float) -> str:
    """A perturbation radius, in 255ths where that is shorter.

    >>> radius(8 / 255), radius(0.2), radius(1 / 510), radius(0.12345678)
    ('8/255', '0.2', '0.5/255', '0.123457')
    """
    plain, steps = f"{eps:.6g}", f"{eps * 255:.9g}"
    return plain if len(plain) <= len(steps) + 4 else f"{steps}/255"


def listed(numbers: Sequence[int]) -> str:
    """Whole numbers in rising order.

    >>> listed([1, 2, 3, 4, 5]), listed([1, 3, 5]), listed([2])
    ('1 to 5', '1, 3 and 5', '2')
    """
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    *most, last = map(str, numbers)
    return f"{', '.join(most)} and {last}" if most else last

"""Numbers as a person says them: "about 43 of 100 samples (40 to 46)", "8/255".

>>> from vambrace.core.findings import Interval
>>> share(0.4312, 1000, "samples", Interval(low=0.4, high=0.462, method="wilson"))
'about 43 of 100 samples (40 to 46)'
>>> share(7 / 12, 12, "samples", None), share(1.0, 60, "samples", None)
('7 of 12 samples', 'all 60 samples')
>>> radius(8 / 255), radius(0.3)
('8/255', '0.3')
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vambrace.core.findings import Interval

__all__ = ["between", "hundred", "number", "radius", "share", "spoken"]

_MANY = 50  # from here on a share is said as a part of 100, below as the count that it is


def share(value: float, n: int, what: str, interval: Interval | None) -> str:
    """A share of n things with its interval, which is in parts of 100."""
    if value in (0.0, 1.0):
        said, unit = f"{'all' if value else 'none of'} {n:,} {what}", " of 100"
    elif n >= _MANY:
        said, unit = f"about {hundred(value)} of 100 {what}", ""
    else:
        said, unit = f"{round(value * n)} of {n} {what}", " of 100"
    return said if interval is None else f"{said} ({hundred(interval.low)} to {hundred(interval.high)}{unit})"


def hundred(value: float) -> str:
    """A share as its part of 100: whole numbers in the middle, one decimal where it matters.

    >>> hundred(0.4312), hundred(0.998), hundred(0.0)
    ('43', '99.8', '0')
    """
    part = 100 * value
    return f"{part:.0f}" if 10 <= part <= 90 else f"{part:.1f}".removesuffix(".0")


def between(interval: Interval | None) -> str:
    """The ends of an interval in brackets, with a space before; nothing where there is none."""
    return "" if interval is None else f" ({number(interval.low)} to {number(interval.high)})"


def number(value: float) -> str:
    """Three significant digits: "0.0123", "4.2", "1,234"."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def radius(eps: float) -> str:
    """A perturbation radius, in 255ths where it is a whole number of them."""
    steps = eps * 255
    if 0 < steps < 255 and abs(steps - round(steps)) < 1e-9:
        return f"{round(steps)}/255"
    return f"{eps:.6g}"


def spoken(name: str) -> str:
    """A registered name in plain words: "gaussian noise"."""
    return name.replace("_", " ")

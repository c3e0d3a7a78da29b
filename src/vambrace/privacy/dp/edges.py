"""The last whole number that fits, and the safe side of a root: the two searches of calibration and monitors.

>>> last_that_fits(lambda steps: steps * steps <= 50, limit=1000)
7
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

from scipy.optimize import brentq  # pyright: ignore[reportUnknownVariableType]

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["fitting", "last_that_fits", "rounded"]

_DIGITS = 5


def last_that_fits(fits: Callable[[int], bool], *, limit: int, known: int = 0) -> int:
    """The largest n up to `limit` for which all up to n fit, where what does not fit never fits again later.

    Args:
        fits: asked about n from `known` + 1 to `limit`, about twice as often as the answer has bits.
        limit: the answer is at most this.
        known: fits, without being asked; 0 or more.
    """
    low, high, stride = known, limit + 1, max(1, known // 16)
    while low + stride < high and fits(low + stride):
        low, stride = low + stride, 2 * stride
    high = min(high, low + stride)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def fitting(excess: Callable[[float], float], broken: float, safe: float) -> float:
    """The point nearest to `broken` that is safe, to 5 significant digits, rounded toward `safe`.

    Args:
        excess: of a point: above 0 where it breaks the target; it changes its sign once between the two.
        broken: a point with excess.
        safe: a point without.
    """

    def bounded(log: float) -> float:
        value = excess(math.exp(log))
        return max(-50.0, min(50.0, value))  # epsilons of 0 and infinity have no logarithm to interpolate

    log = cast("Any", brentq)(bounded, math.log(broken), math.log(safe), xtol=10.0**-_DIGITS)
    root = math.exp(log)
    up = safe > broken
    point = rounded(root, up=up)
    while excess(point) > 0:
        point = rounded(point * (1 + 10.0**-_DIGITS if up else 1 - 10.0**-_DIGITS), up=up)
    return point


def rounded(value: float, *, up: bool, digits: int = _DIGITS) -> float:
    """`value` to significant digits, up or down.

    >>> rounded(1.2345678, up=True), rounded(1.2345678, up=False)
    (1.2346, 1.2345)
    """
    if value == 0 or not math.isfinite(value):
        return value
    places = digits - 1 - math.floor(math.log10(abs(value)))
    scaled = value * 10.0**places
    whole = (math.ceil if up else math.floor)(round(scaled, 6))
    return float(f"{whole}e{-places}")

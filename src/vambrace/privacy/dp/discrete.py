"""The discrete Gaussian on the integers, drawn exactly: P(k) is proportional to exp(-k^2 / 2 sigma^2).

Canonne, Kamath, Steinke 2020, "The Discrete Gaussian for Differential Privacy", arXiv 2004.00010, algorithm 3: propose
from a discrete Laplace distribution, accept with the ratio of the two. What is exact: every floor and every comparison
is the one that real arithmetic would make on an endless uniform word, for the exact value of the float sigma. Floats
decide only where their error, bounded here with room to spare, cannot matter; the few draws that are left (one in about
2^14 for the largest sigma, 2^26 for sigma = 2^20) are decided with as many decimals and further bits as they need. What
is not: time, which depends on the numbers drawn.
"""

from __future__ import annotations

import math
from decimal import Context, Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["discrete_gaussian"]

LARGEST = 2.0**32  # sigma; beyond it, too many proposals would need decimals
SMALLEST = 2.0**-32
_CHUNK = 2**15

# Errors that the float path is allowed. The logarithm and the exponential are good to a unit or two in the last place,
# 2^-53 to 2^-51 of the value; these are 4 times that and more.
_ROUNDING = 2.0**-49
_CONVERSION = 2.0**-49
_CHANCE = 2.0**-44
_FEWEST = 2**10  # words below it make the logarithm steep


def discrete_gaussian(count: int, sigma: float, words: Callable[[int], NDArray[np.uint64]]) -> NDArray[np.int64]:
    """Independent draws.

    Args:
        count: how many.
        sigma: parameter of the distribution, `SMALLEST` to `LARGEST`. The standard deviation is below it, by less than
            1e-15 of it from sigma = 1 on.
        words: gives so many fresh uniform 64-bit words.

    Returns:
        (count,).
    """
    drawn = np.empty(count, dtype=np.int64)
    done = 0
    while done < count:
        proposed = _laplace(min(_CHUNK, (count - done) * 3 // 2 + 8), math.floor(sigma) + 1, words)
        kept = proposed[_accepted(proposed, sigma, words)][: count - done]
        drawn[done : done + len(kept)] = kept
        done += len(kept)
    return drawn


def _laplace(count: int, scale: int, words: Callable[[int], NDArray[np.uint64]]) -> NDArray[np.int64]:
    """At most `count` draws with P(k) proportional to exp(-|k| / scale): sign and size of one word each."""
    drawn = words(count)
    negative = drawn >> np.uint64(63) == 1
    place = (drawn & np.uint64(2**63 - 1)).astype(np.int64)
    # Floor of an exponential number of this mean is geometric: P(size >= k) = P(u <= exp(-k / scale)).
    real = (place + 0.5) * 2.0**-63
    np.log(real, out=real)
    real *= -scale
    size = np.floor(real).astype(np.int64)
    slack = scale * (_CONVERSION + 1.0 / (place + 1.0)) + real * _ROUNDING
    unsure = (np.abs(real - np.rint(real)) <= slack) | (place < _FEWEST)
    for index in np.flatnonzero(unsure):
        size[index] = _exact_floor(int(place[index]), scale, words)
    kept = ~(negative & (size == 0))  # or zero would have two chances
    return np.where(negative, -size, size)[kept]


def _accepted(
    proposed: NDArray[np.int64], sigma: float, words: Callable[[int], NDArray[np.uint64]]
) -> NDArray[np.bool_]:
    scale = math.floor(sigma) + 1
    distance = np.abs(proposed) - sigma * sigma / scale
    chance = np.exp(distance * distance / (-2.0 * sigma * sigma))
    drawn = words(len(proposed))
    place = drawn * 2.0**-64
    accepted = place < chance
    for index in np.flatnonzero(np.abs(place - chance) <= _CHANCE):
        accepted[index] = _exact_below(int(drawn[index]), abs(int(proposed[index])), sigma, words)
    return accepted


def _exact_floor(place: int, scale: int, words: Callable[[int], NDArray[np.uint64]]) -> int:
    """floor(-scale ln u) for u that begins with the 63 binary digits of `place`."""
    digits = 63
    while True:
        context = Context(prec=40 + digits // 3)
        margin = Fraction(scale, 1 << (digits + 32))  # far above the rounding of these decimals
        if place:
            most, least = (
                -scale * Fraction(context.ln(context.divide(Decimal(end), Decimal(1 << digits))))
                for end in (place, place + 1)
            )
            if math.floor(least - margin) == math.floor(most + margin):
                return math.floor(least)
        place, digits = place << 64 | int(words(1)[0]), digits + 64


def _exact_below(place: int, size: int, sigma: float, words: Callable[[int], NDArray[np.uint64]]) -> bool:
    """Whether u < exp(-(size - sigma^2 / t)^2 / 2 sigma^2), t = floor(sigma) + 1.

    Args:
        place: the first 64 binary digits of u; more are drawn where they do not decide.
        size: of the proposal, without its sign.
        sigma: of the distribution.
        words: gives fresh words.
    """
    square = Fraction(sigma) ** 2
    power = (size - square / (math.floor(sigma) + 1)) ** 2 / (2 * square)
    digits = 64
    while True:
        context = Context(prec=40 + digits // 3)
        chance = context.exp(-context.divide(Decimal(power.numerator), Decimal(power.denominator)))
        margin = Fraction(1, 1 << (digits + 32))
        if Fraction(place + 1, 1 << digits) < Fraction(chance) - margin:
            return True
        if Fraction(place, 1 << digits) > Fraction(chance) + margin:
            return False
        place, digits = place << 64 | int(words(1)[0]), digits + 64

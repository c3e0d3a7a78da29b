"""How many of n coins fall heads, in one draw: the binomial distribution as a table of whole numbers.

The table is computed in whole-number arithmetic, so its error is known: `size` differs from the true distribution by a
total variation below 2^-100 (weights are kept to 2^-192 of the largest, thresholds to 2^-128).
"""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache

__all__ = ["size"]

WORD_BITS = 128


def size(n: int, rate: float, word: int) -> int:
    """The number of heads among `n` coins of probability `rate` each, from one uniform word.

    Args:
        n: coins, 0 or more.
        rate: taken as the exact value of the float, 0 <= rate <= 1.
        word: uniform on 0 <= word < 2^`WORD_BITS`.
    """
    if rate in {0, 1}:
        return int(rate) * n
    lowest, thresholds = _table(n, rate)
    return lowest + bisect_right(thresholds, word)


@lru_cache(maxsize=8)
def _table(n: int, rate: float) -> tuple[int, list[int]]:
    """The smallest size that is ever given, and for each size from it on: 2^128 times the probability of no more."""
    heads, whole = rate.as_integer_ratio()
    tails = whole - heads
    mode = min(n, (n + 1) * heads // whole)
    above = [1 << 192]
    while above[-1] and mode + len(above) <= n:
        k = mode + len(above)
        above.append(above[-1] * (n - k + 1) * heads // (k * tails))
    below = [1 << 192]
    while below[-1] and len(below) <= mode:
        k = mode - len(below)
        below.append(below[-1] * (k + 1) * tails // ((n - k) * heads))
    weights = below[:0:-1] + above
    total = sum(weights)
    thresholds: list[int] = []
    reached = 0
    for weight in weights[:-1]:
        reached += weight
        thresholds.append((reached << WORD_BITS) // total)
    return mode + 1 - len(below), thresholds

"""How far numbers of many rows tell others, by their ranks alone: shifted, scaled or bent ones tell as much.

Rank correlation is Spearman's (Am. J. Psychol. 15, 1904). Arrays are of n rows, of any further sizes, and finite where
nothing else is said.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata  # pyright: ignore[reportUnknownVariableType]

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ALIKE", "EQUAL", "one_by_one", "ranked", "told_apart"]

ALIKE = 0.95
"""From so much on, what tells a thing is that thing, and no measure of chance."""

EQUAL = 2.0
"""Of a number that is the same in all rows."""

_SHIFTS = 8

_LUCK = 10.0
"""What happens once in two to the power of this is no luck any more."""

_MOSTLY = 0.9


def ranked(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Rank correlation over the rows, of several numbers a row the mean weighted by how far each of them spreads.

    Of what is the same for all rows, how near the other comes: 1 where it is the same, 0 beyond twice its size.
    """
    spread = _spread(first)
    if not spread.any():
        size = float(np.abs(first).sum())
        return max(0.0, 1 - float(np.abs(second - first).sum()) / size) if size else 0.0
    return _bounded((_ranks(first) * _ranks(second)).sum(axis=0) @ spread / spread.sum())


def told_apart(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """How much better numbers are told by their counterparts, or by their reverse, than by what knows nothing of them.

    One factor that moves all numbers of a row, such as the brightness of a picture, makes any network's tell any
    other's. So the mean size of the rank correlation of each number with its own counterpart is taken beyond that with
    the counterparts of others, as a part of the rest; not where there is one number alone, or all are alike.

    Args:
        first: numbers.
        second: their counterparts, each of which may be reversed by itself.

    Returns:
        1 for the same up to a rank-preserving map, -1 where most are reversed, 0 at chance.
    """
    spread = _spread(first)
    signed = ranked(first, second)
    if not spread.any():
        return signed
    one, two = _ranks(first), _ranks(second)
    own = _mean_size(one, two, spread)
    chance = _by_others(one, two, spread)
    if chance > ALIKE:
        chance = 0.0
    return math.copysign(max(0.0, own - chance) / (1 - chance), signed)


def one_by_one(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """The size of the rank correlation of each number (n, numbers) with that of the others' which tells it best.

    `EQUAL` where its own counterpart is the very same. With that alone, or 0, where rows, or those that differ, are so
    few that one of so many has the same order by luck. Counterparts that are none in a few rows are compared in the
    others, and tell no other number.
    """
    numbers = int(first.shape[1])
    if not numbers or len(first) < 2:
        none: NDArray[np.float64] = np.zeros(numbers)
        return none
    finite = np.isfinite(second)
    whole = finite.all(axis=0)
    orders = np.array([_orders(column) for column in first.T], np.float64) - _LUCK
    one, two = _ranks(first), _ranks(np.where(whole, second, 0.0))
    own: NDArray[np.float64] = np.abs((one * two).sum(axis=0))
    for at in np.flatnonzero(~whole & (finite.mean(axis=0) > _MOSTLY)).tolist():
        rows = finite[:, at]
        own[at] = np.abs((_ranks(first[rows, at : at + 1]) * _ranks(second[rows, at : at + 1])).sum())
    best: NDArray[np.float64] = np.maximum(own, np.abs(one.T @ two).max(axis=1))
    least = math.log2(numbers)
    found = own * (orders >= least) * (orders < 2 * least) + best * (orders >= 2 * least)
    return np.asarray(np.where((orders >= least) & (first == second).all(axis=0), EQUAL, found), np.float64)


def _orders(column: NDArray[np.float64]) -> float:
    """Binary logarithm of how many orders there are of numbers of which some are alike."""
    alike = np.unique(column, return_counts=True)[1].tolist()
    return (math.lgamma(column.size + 1) - sum(math.lgamma(count + 1) for count in alike)) / math.log(2)


def _by_others(one: NDArray[np.float64], two: NDArray[np.float64], spread: NDArray[np.float64]) -> float:
    """The mean size of the correlation of numbers with the counterparts of others; 0 of a number alone."""
    count = len(spread)
    shifts = range(1, count)
    if len(shifts) > _SHIFTS:  # neighbours, as in pictures, tell each other
        shifts = [(place + 1) * count // (_SHIFTS + 1) for place in range(_SHIFTS)]
    found = [
        (_mean_size(one, np.roll(two, shift, axis=1), weights), float(weights.sum()))
        for shift in shifts
        if (weights := np.sqrt(spread * np.roll(spread, shift))).any()
    ]
    return float(np.average([each for each, _ in found], weights=[weight for _, weight in found])) if found else 0.0


def _mean_size(one: NDArray[np.float64], two: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    return _bounded(np.abs((one * two).sum(axis=0)) @ weights / weights.sum())


def _bounded(value: float) -> float:
    """From -1 to 1, whatever rounding makes of it."""
    return min(1.0, max(-1.0, float(value)))


def _spread(array: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how much each number differs from its mean, summed over the rows."""
    return np.abs(array - array.mean(axis=0)).reshape(len(array), -1).sum(axis=0)


def _ranks(array: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks of each number over the rows, of mean 0 and length 1, or 0 where they are all the same."""
    ranks: NDArray[np.float64] = rankdata(array.reshape(len(array), -1), axis=0)
    ranks = ranks - ranks.mean(axis=0)
    length = np.sqrt(np.square(ranks).sum(axis=0))
    return np.divide(ranks, length, out=np.zeros_like(ranks), where=length > 0)

"""How much answers are like those of an original: 1 where they are the same function, about 0 where they know nothing.

- Decisions: kappa (Cohen, Educ. Psychol. Meas. 20, 1960), the share of the same decisions beyond the share that
  networks with these frequencies, at each place of a row, have in common without knowing of each other, as a part of
  the rest.
- Numbers: the rank correlation over the rows, of several numbers a row the mean weighted by how far each of them
  spreads. A score that is shifted, scaled or bent is as good as the original's for whoever moves the threshold.
- Each number by itself: which of them are told by any of the other's, up to maps that keep or turn their order. Where
  numbers have changed places, or a few of many or small ones beside large ones lie in clear, the mean does not show it.
- For whoever turns answers round: the size of the rank correlation of each number, or of each score less the mean of
  all, beyond that with other numbers (`vambrace.assets.obfuscate.measure.ranks`); of decisions also under other names.

Numbers are compared in the rows in which the other's are numbers too, and count by the share of these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import linear_sum_assignment  # pyright: ignore[reportUnknownVariableType]

from vambrace.assets.obfuscate.measure.difference import choices, scores
from vambrace.assets.obfuscate.measure.ranks import ALIKE, one_by_one, ranked, told_apart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Likeness", "OPEN", "beyond", "beyond_all", "decided_by", "likeness", "often"]

OPEN = 0.999
"""From so much on it is the original."""

_MOST_NAMES = 512
_OFTEN = 5
"""How often each decision is made on average, at least: of others any can be called by the names of any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """Of the answers of one network to those of another.

    Attributes:
        value: as they are.
        turned: for whoever turns round or moves what it answers; 0 where that was not asked for.
        shares: of the same decisions, found and by chance, where decisions are compared.
        singly: how well each number of a row is told, from 0 to 1, by that of the other which tells it best, or EQUAL.
    """

    value: float = 0.0
    turned: float = 0.0
    shares: tuple[float, float] | None = None
    singly: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


def likeness(
    wanted: NDArray[Any], other: NDArray[Any] | None, decided: NDArray[np.int64] | None, *, turned: bool = False
) -> Likeness:
    """Compare answers of one output.

    Args:
        wanted: the original's (n, ...).
        other: another network's; None where it has none.
        decided: the original's decisions, not all alike, where they are to be compared.
        turned: whether to look at what can be turned round, too.
    """
    if other is None or other.shape != wanted.shape or not wanted.size:
        return Likeness()
    theirs = decided_by(other) if decided is not None else None
    first, second = _numbers(wanted, other)
    numbers = _finite(first, second)
    ways = [numbers, _beside_the_mean(wanted, other) if theirs is not None else None] if turned else []
    told = max((both.share * told_apart(both.first, both.second) for both in ways if both), key=abs, default=0.0)
    singly = one_by_one(first, second) if turned else np.zeros(0)
    if decided is None or theirs is None:
        value = numbers.share * ranked(numbers.first, numbers.second) if numbers else 0.0
        return Likeness(value=value, turned=told, singly=singly)
    same, chance = _shares(decided.reshape(len(wanted), -1), theirs.reshape(len(wanted), -1))
    value = (same - chance) / (1 - chance)
    # Where both decide rarely for one of two, the reverse agrees less often than chance by little only.
    two = len(np.unique(np.concatenate([decided, theirs]))) == 2
    reverse = (same - chance) / chance if two and same < chance else value
    if turned and not two and often(theirs):
        reverse = max(reverse, _renamed(decided, theirs), key=abs)
    return Likeness(
        value=value, turned=max(reverse, told, key=abs) if turned else 0.0, shares=(same, chance), singly=singly
    )


def decided_by(answers: NDArray[Any]) -> NDArray[np.int64] | None:
    """Decisions: those of scores, and whole numbers and truth values as they are; None for other numbers."""
    if answers.dtype.kind in "iub":
        return answers.reshape(-1).astype(np.int64)
    return choices(answers)


def often(decided: NDArray[np.int64]) -> bool:
    """Whether decisions come often enough to be some: else they are quantities, or names of single rows."""
    return len(np.unique(decided)) <= decided.size / _OFTEN


def beyond(values: Sequence[float], strangers: Sequence[float]) -> tuple[float, ...]:
    """Likeness beyond the mean of what knows nothing of the original, as a part of the rest.

    Where that is all but the original, it is no measure of chance, and nothing is taken off.
    """
    chance = max(0.0, float(np.mean(strangers))) if len(strangers) else 0.0
    if chance > ALIKE:
        chance = 0.0
    return tuple((value - chance) / (1 - chance) for value in values)


def beyond_all(value: float, strangers: Sequence[float], several: int = 1) -> float:
    """The same of one value that may be reversed; 0 where one of the strangers is as far from chance.

    Of several outputs the luckiest is farther: by as many deviations more as their number is to that of the strangers,
    in logarithms.
    """
    sizes = [abs(each) for each in strangers]
    if sizes and np.mean(sizes) <= ALIKE:
        more = math.log(several) / math.log(len(sizes) + 1) * float(np.std(sizes))
        if abs(value) <= min(OPEN, max(sizes) + more):
            return 0.0
    return float(np.copysign(beyond([abs(value)], sizes)[0], value))


def _renamed(one: NDArray[np.int64], two: NDArray[np.int64]) -> float:
    """Kappa of the decisions when those of the second get the names under which most are the same."""
    first, places = np.unique(one, return_inverse=True)
    second, others = np.unique(two, return_inverse=True)
    if max(len(first), len(second)) > _MOST_NAMES:
        return 0.0
    table = np.zeros((len(first), len(second)))
    np.add.at(table, (places, others), 1.0)
    matched: tuple[NDArray[np.int64], NDArray[np.int64]] = linear_sum_assignment(table, maximize=True)  # pyright: ignore[reportUnknownVariableType]
    same = float(table[matched].sum()) / len(one)
    chance = float((table.sum(axis=1)[matched[0]] * table.sum(axis=0)[matched[1]]).sum()) / len(one) ** 2
    return (same - chance) / (1 - chance) if chance < 1 else 0.0


def _shares(one: NDArray[np.int64], two: NDArray[np.int64]) -> tuple[float, float]:
    """Of the same decisions (rows, places), found, and by how often each place has each of them."""
    rows, places = one.shape
    kinds: NDArray[np.int64] = np.unique(np.concatenate([one, two]))
    (first, ours), (second, theirs) = (_counts(each, kinds) for each in (one, two))
    both = np.isin(first, second)
    together = int(ours[both] @ theirs[np.searchsorted(second, first[both])])
    return float((one == two).mean()), together / (rows**2 * places)


def _counts(decided: NDArray[np.int64], kinds: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers that stand for a place and a decision, and how often each is made."""
    places = decided.shape[1]
    numbers = np.asarray(np.searchsorted(kinds, decided), np.int64)
    found, counts = np.unique(numbers * places + np.arange(places, dtype=np.int64), return_counts=True)
    return found, counts.astype(np.int64)


@dataclass(frozen=True, slots=True)
class _Both:
    """Finite numbers of two networks in the same rows, a share of all."""

    first: NDArray[np.float64]
    second: NDArray[np.float64]
    share: float


def _numbers(wanted: NDArray[Any], other: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both (rows, numbers), as far as the original's are numbers."""
    first, second = (each.astype(np.float64).reshape(len(each), -1) for each in (wanted, other))
    # What is no number in the original tells nothing; where only the other gives none, it is another answer.
    told = np.isfinite(first)
    rows: NDArray[np.bool_] = np.asarray(told[:, told.any(axis=0)].all(axis=1))
    if 2 * rows.sum() > len(rows):  # else rows that the input alone leaves out would go together in both
        first, second, told = first[rows], second[rows], told[rows]
    return np.where(told, first, 0.0), np.where(told, second, 0.0)


def _beside_the_mean(wanted: NDArray[Any], other: NDArray[Any]) -> _Both | None:
    """Each score less the mean of all at its place: decisions turn with any threshold, and this does not."""
    first, second = (scores(each.astype(np.float64)) if each.dtype.kind == "f" else None for each in (wanted, other))
    if first is None or second is None:
        return None
    # A class that is left out, such as by a score of -inf, tells nothing of the others.
    told = np.isfinite(first).all(axis=0)
    if not told.any():
        return None
    shape = (len(wanted), -1, int(told.sum()))
    both = _finite(first[:, told].reshape(shape), second[:, told].reshape(shape))
    if both is None:
        return None
    first, second = (each - each.mean(axis=2, keepdims=True) for each in (both.first, both.second))
    return _Both(first, second, both.share)


def _finite(first: NDArray[np.float64], second: NDArray[np.float64]) -> _Both | None:
    """The rows in which the second are numbers; None of fewer than two."""
    rows = np.isfinite(second).reshape(len(second), -1).all(axis=1)
    return _Both(first[rows], second[rows], float(rows.mean())) if rows.sum() > 1 else None

"""Ranking quality of scores, with intervals: area under the ROC curve, true positives at few false ones.

Scores say how sure an attack is that a sample is a member (or a detector that it is an attack): higher means
more sure. Infinite scores are ranked; NaN is refused, because a sample without a score was not measured.

    >>> auc([0.9, 0.8, 0.3], [0.4, 0.2, 0.1])
    0.8888888888888888
    >>> roc_tpr([0.9, 0.8, 0.3], [0.4, 0.2, 0.1], 0.4)
    1.0
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

from vambrace.core.findings import Interval
from vambrace.core.intervals import RESAMPLES, percentiles, resampled, two_sided, wilson, wilson_clustered
from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from vambrace.core.rng import Streams

__all__ = ["auc", "delong_auc", "roc_tpr", "tpr_at_fpr"]

FEW = 50
"""Groups smaller than this have a variance too uncertain to rest an interval on alone."""


def auc(members: ArrayLike, nonmembers: ArrayLike) -> float:
    """Share of pairs in which the member scores higher, ties counting one half; 0.5 is chance.

    Raises:
        ConfigError: E106, where a side is empty or a score is NaN.
    """
    placed, _ = _placements(members, nonmembers)
    return float(placed.mean())


def delong_auc(members: ArrayLike, nonmembers: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Interval of `auc` from DeLong's variance on the logit scale (DeLong et al., Biometrics 44, 1988).

    Where the variance is zero (all pairs ranked alike, or all tied) it says nothing: the interval is then Wilson's for
    a share of the smaller group, which is wider than needed. Below 50 samples in a group the variance is itself
    uncertain, and the interval covers both. With 100 and more, simulated coverage is 94 to 97 % for areas up to
    0.96, 92 % at 0.98, and 87 % where nearly all scores tie.
    """
    placed_members, placed_nonmembers = _placements(members, nonmembers)
    many, few = placed_members.size, placed_nonmembers.size
    area = float(placed_members.mean())
    smaller = min(many, few)
    widest = wilson_clustered([area] * smaller, 1, confidence=confidence)
    assert widest is not None  # both sides have a sample
    widest = dataclasses.replace(widest, method="wilson-auc")
    if area in (0.0, 1.0) or smaller < 2:
        return widest
    variance = float(placed_members.var(ddof=1)) / many + float(placed_nonmembers.var(ddof=1)) / few
    if variance <= 0:
        return widest
    centre = math.log(area / (1 - area))
    half = two_sided(confidence) * math.sqrt(variance) / (area * (1 - area))
    low, high = _sigmoid(centre - half), _sigmoid(centre + half)
    if smaller < FEW:
        return dataclasses.replace(widest, low=min(low, widest.low), high=max(high, widest.high))
    return Interval(
        low=low,
        high=high,
        method="delong-logit",
        confidence=confidence,
    )


def roc_tpr(members: ArrayLike, nonmembers: ArrayLike, fpr: float) -> float:
    """Share of members above the threshold that lets at most `fpr` of the non-members through.

    "Above" is strict and the threshold is a non-member's score, so ties never flatter the attack: with 1,000
    non-members and fpr 0.01 it is the eleventh highest non-member score.
    """
    yes, no = _pair(members, nonmembers)
    return float((yes > np.sort(no)[::-1][_allowed(no.size, fpr)]).mean())


def tpr_at_fpr(
    members: ArrayLike,
    nonmembers: ArrayLike,
    fpr: float,
    *,
    rng: Streams,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> Interval:
    """Interval of `roc_tpr`: both sides are resampled apart, and the threshold is found anew each time.

    The result holds `roc_tpr` and reaches at least as far as Wilson's interval at the found threshold, which
    keeps it honest where no member, or every member, is above it.
    """
    yes, no = _pair(members, nonmembers)
    fixed = wilson(round(roc_tpr(yes, no, fpr) * yes.size), yes.size, confidence=confidence)
    assert fixed is not None  # noqa: S101  there is a member
    high_first = np.sort(no)[::-1]
    place = _allowed(no.size, fpr)
    stream = rng.child("tpr")
    # The threshold of a resample is the non-member whose rank is the `place`-th smallest index drawn.
    ranks = [
        np.partition(index, place, axis=1)[:, place]
        for index in resampled(stream.child("nonmembers"), no.size, resamples)
    ]
    thresholds = high_first[np.concatenate(ranks)]
    shares: list[NDArray[np.float64]] = []
    for index in resampled(stream.child("members"), yes.size, resamples):
        done = sum(map(len, shares))
        shares.append((yes[index] > thresholds[done : done + len(index), None]).mean(axis=1))
    spread = percentiles(np.concatenate(shares), "bootstrap", confidence) or fixed
    return Interval(
        low=min(spread.low, fixed.low),
        high=max(spread.high, fixed.high),
        method="bootstrap-tpr",
        confidence=confidence,
    )


def _placements(members: ArrayLike, nonmembers: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each score, the share of the other side that it is ranked right against (ties one half)."""
    yes, no = _pair(members, nonmembers)
    sorted_yes, sorted_no = np.sort(yes), np.sort(no)
    below = np.searchsorted(sorted_no, yes, side="left") + np.searchsorted(sorted_no, yes, side="right")
    above = np.searchsorted(sorted_yes, no, side="left") + np.searchsorted(sorted_yes, no, side="right")
    return below / (2 * no.size), 1 - above / (2 * yes.size)


def _allowed(nonmembers: int, fpr: float) -> int:
    """How many non-members may be above the threshold, at most all but one."""
    if not 0 < fpr < 1:
        raise ConfigError(
            "E106",
            seen=f"a false positive rate of {fpr!r}",
            expected="a number between 0 and 1",
            fix="use a rate such as 0.01",
        )
    # 0.29 * 100 is 28.999999999999996: the product is rounded before it is cut.
    return min(math.floor(round(fpr * nonmembers, 9)), nonmembers - 1)


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


def _pair(members: ArrayLike, nonmembers: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    yes, no = np.asarray(members, dtype=np.float64), np.asarray(nonmembers, dtype=np.float64)
    if any(side.ndim != 1 or not side.size or np.isnan(side).any() for side in (yes, no)):
        seen = [f"{side.shape} with {np.isnan(side).sum()} NaN" for side in (yes, no)]
        raise ConfigError(
            "E106",
            seen=f"member scores {seen[0]}, non-member scores {seen[1]}",
            expected="at least one score a side, (n,), none of them NaN",
            fix="leave samples without a score out and count them as not measured",
        )
    return yes, no

"""The bound of jax_privacy's audits, for its golden rows: our proofs, its choice of thresholds."""

from __future__ import annotations

import numpy as np

from vambrace.privacy.dp.one_run import Method, as_epsilon, strongest


def hull_bound(scores: np.ndarray, coins: np.ndarray, *, delta: float, method: Method = "one_run") -> float:
    """The best bound over thresholds that lie on the hull of the ROC, each given its part of an error of 0.05.

    Only guesses of "in" are made. The number of thresholds on the hull is known only once the coins are, so the
    confidence is not proven, and no audit of vambrace does this.
    """
    thresholds = np.append(np.unique(scores), np.inf)
    missed = np.searchsorted(np.sort(scores[coins]), thresholds)
    spared = np.searchsorted(np.sort(scores[~coins]), thresholds)
    kept = _hull(np.stack([missed, spared], axis=1))
    right, wrong = coins.sum() - missed[kept], (~coins).sum() - spared[kept]
    share = right / np.maximum(right + wrong, 1)
    best = 0.0
    # The promising first: the others are then seldom worth a search.
    for place in np.argsort(3 * np.sqrt(share * (1 - share) / np.maximum(right + wrong, 1)) - share):
        guesses, correct = int(right[place] + wrong[place]), int(right[place])
        best = strongest(method, len(coins), guesses, correct, delta, 0.05 / len(kept), best) if guesses else best
    return as_epsilon(method, best, delta)


def _hull(points: np.ndarray) -> np.ndarray:
    """Places of the corners of the upper hull of a rising staircase, both ends among them."""
    kept = np.arange(len(points))
    while len(kept) > 2:
        steps = np.diff(points[kept], axis=0)
        inside = steps[:-1, 1] * steps[1:, 0] <= steps[1:, 1] * steps[:-1, 0]
        if not inside.any():
            break
        kept = kept[np.concatenate(([True], ~inside, [True]))]
    return kept

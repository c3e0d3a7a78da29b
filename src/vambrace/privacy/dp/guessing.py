"""Scores of canaries to guesses, and guesses to a bound on epsilon: what an auditor does with what training gave away.

    >>> import numpy as np
    >>> coins = np.arange(2000) % 2 == 0
    >>> audit_bound(coins + np.sin(np.arange(2000)), coins, guesses=400, delta=1e-5).correct
    400

Scores are anything that tends to be larger for samples that were trained on: minus the loss, or how far a weight moved.
The highest are guessed to be in, the lowest to be out, the rest is left alone. Needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vambrace.core.options import Options
from vambrace.privacy.dp.one_run import Method, lower_bound, require_audit

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Bound", "audit_bound", "count_correct"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound(Options):
    """A lower bound on epsilon, and the counts that prove it.

    Attributes:
        epsilon: at the confidence, training is not (e, delta)-private for any e below it; 0: nothing was ruled out.
        delta: of the claim.
        confidence: that this is so.
        method: how it was proved; see `vambrace.privacy.dp.one_run`.
        canaries, guesses, correct: coins, how many were guessed, and how many rightly.
    """

    epsilon: float
    delta: float
    confidence: float
    method: Method
    canaries: int
    guesses: int
    correct: int

    @classmethod
    def of(cls, *, canaries: int, guesses: int, correct: int, delta: float, confidence: float, method: Method) -> Bound:
        """The bound that these counts prove.

        Raises:
            ConfigError: E159, as `lower_bound`.
        """
        return cls(
            epsilon=lower_bound(
                method, canaries=canaries, guesses=guesses, correct=correct, delta=delta, confidence=confidence
            ),
            delta=delta,
            confidence=confidence,
            method=method,
            canaries=canaries,
            guesses=guesses,
            correct=correct,
        )


def audit_bound(
    scores: ArrayLike,
    included: ArrayLike,
    *,
    guesses: int,
    delta: float,
    confidence: float = 0.95,
    method: Method = "one_run",
) -> Bound:
    """The bound that scores prove.

    Args:
        scores: (canaries,), finite.
        included: (canaries,) bool: the coins, each thrown by itself with equal chances, before training.
        guesses: how many canaries to guess, fixed before anybody saw a score; see `vambrace.privacy.dp.power`.
        delta: of the claim.
        confidence: of the bound.
        method: see `vambrace.privacy.dp.one_run`.

    Raises:
        ConfigError: E159, for values out of range, scores that are not finite, or coins that are no coins.
    """
    ranked, coins = _checked(scores, included)
    require_audit(0 <= guesses <= len(coins), "guesses", guesses, f"0 to {len(coins)}, one a canary at most")
    correct = count_correct(ranked, coins, guesses)
    return Bound.of(
        canaries=len(coins), guesses=guesses, correct=correct, delta=delta, confidence=confidence, method=method
    )


def count_correct(scores: NDArray[np.float64], included: NDArray[np.bool_], guesses: int) -> int:
    """Right guesses where half of them (rounded up) go to the highest scores, as in, and half to the lowest, as out.

    Equal scores are taken in the order in which they stand, which knows nothing of the coins.
    """
    order = np.argsort(-scores, kind="stable")
    top = (guesses + 1) // 2
    return int(included[order[:top]].sum() + (~included[order[len(order) - (guesses - top) :]]).sum())


def _checked(scores: ArrayLike, included: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    ranked, coins = np.asarray(scores, dtype=np.float64), np.asarray(included)
    require_audit(coins.dtype == np.bool_ and coins.ndim == 1, "included", coins.dtype, "one bool a canary")
    require_audit(ranked.shape == coins.shape, "scores", ranked.shape, f"one a canary, {coins.shape}")
    require_audit(len(coins) > 0 and bool(np.isfinite(ranked).all()), "scores", "not all finite", "finite numbers")
    return ranked, coins

"""What right guesses about secret coins prove: the most epsilon that they rule out, at a confidence. Needs no torch.

    >>> round(lower_bound("one_run", canaries=2000, guesses=400, correct=330, delta=1e-5, confidence=0.95), 3)
    1.328

Canaries are samples that are in the training data or not, each by a coin of its own. Somebody who sees what training
gave away guesses some of the coins. If training is (epsilon, delta)-private, few guesses can be right; where more are,
it is not, at the confidence with which chance is ruled out. One training is enough, because there are many coins.

"one_run": Steinke, Nasr, Jagielski 2023, arXiv 2305.08846, theorem 5.2: of every mechanism. "f_dp": Mahloujifar,
Melis, Chaudhuri 2024, arXiv 2410.22235, algorithm 3, against the curve of the Gaussian mechanism that is (epsilon,
delta)-private: proves more, but only of a training whose claim is that curve: Gaussian noise, every sample in every
step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.special import bdtrc, expit, ndtr, ndtri  # pyright: ignore[reportUnknownVariableType]

from vambrace.core.options import require
from vambrace.privacy.dp.gdp import gdp_epsilon

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Method",
    "as_epsilon",
    "check_confidence",
    "check_counts",
    "lower_bound",
    "one_run_p_value",
    "refutes",
    "require_audit",
    "strongest",
]

Method = Literal["one_run", "f_dp"]

_FINE = 1e-7  # how near the edge a bound is brought, always from the side that is ruled out


def lower_bound(method: Method, *, canaries: int, guesses: int, correct: int, delta: float, confidence: float) -> float:
    """The largest epsilon that the guesses rule out; 0 where they rule out nothing.

    How many guesses there are must not depend on the coins. The best of several counts is a bound only where each of
    them was given a part of the error, 1 - confidence.

    Args:
        method: see the module.
        canaries: coins that were thrown, at least 1.
        guesses: how many of them were guessed. Abstaining from the others is free.
        correct: how many guesses were right.
        delta: of the claim, above 0, below 1; for "one_run" at most 1 / (2 canaries).
        confidence: above 0, below 1.

    Raises:
        ConfigError: E159, for values out of range.
        MissingExtra: E112, for "f_dp" without dp-accounting.
    """
    check_counts(canaries, guesses, correct)
    check_confidence(method, canaries, delta, confidence)
    return as_epsilon(method, strongest(method, canaries, guesses, correct, delta, 1 - confidence), delta)


def one_run_p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """The chance of so many right guesses, at most, if training is (epsilon, delta)-private (theorem 5.2).

    Right guesses are then no likelier than heads of coins of probability 1 / (1 + exp(-epsilon)), but for what delta
    allows: it can make up for i missing ones with probability 2 canaries delta / i.
    """
    heads = float(expit(epsilon))
    tail = float(bdtrc(correct - 1, guesses, heads))
    if not correct or not delta:
        return tail
    missing = np.arange(1, correct + 1)
    gained = (bdtrc(correct - 1 - missing, guesses, heads) - tail) / missing
    return min(1.0, tail + 2 * canaries * delta * max(0.0, float(np.max(gained))))


def refutes(
    method: Method, canaries: int, guesses: int, correct: int, strength: float, delta: float, error: float
) -> bool:
    """Whether a claim is ruled out with a chance of error of at most `error`.

    Args:
        method: see the module.
        canaries: coins.
        guesses: how many of them were guessed.
        correct: how many guesses were right.
        strength: of the claim: its epsilon for "one_run", the mu of its Gaussian for "f_dp".
        delta: of the claim; a curve has none.
        error: above 0, below 1.
    """
    if method == "one_run":
        return one_run_p_value(canaries, guesses, correct, strength, delta) <= error
    return _excess(canaries, guesses, correct, strength, error) > 0


def strongest(
    method: Method, canaries: int, guesses: int, correct: int, delta: float, error: float, at_least: float = 0.0
) -> float:
    """The largest strength that is ruled out, from below; `at_least` where nothing from there on is."""

    def out(strength: float) -> bool:
        return refutes(method, canaries, guesses, correct, strength, delta, error)

    return _last(out, at_least) if out(at_least) else at_least


def as_epsilon(method: Method, strength: float, delta: float) -> float:
    """A strength as the epsilon that goes with delta."""
    return strength if method == "one_run" else gdp_epsilon(strength, delta)


def check_counts(canaries: int, guesses: int, correct: int) -> None:
    """Raise E159 unless there can be so many canaries, guesses and right ones."""
    require_audit(canaries >= 1, "canaries", canaries, "1 or more")
    require_audit(0 <= guesses <= canaries, "guesses", guesses, f"0 to {canaries}, one a canary at most")
    require_audit(0 <= correct <= guesses, "correct", correct, f"0 to {guesses}, the guesses")


def check_confidence(method: Method, canaries: int, delta: float, confidence: float) -> None:
    """Raise E159 unless something can be proved at this delta and confidence."""
    require_audit(0 < confidence < 1, "confidence", confidence, "above 0, below 1")
    require_audit(0 < delta < 1, "delta", delta, "above 0, below 1")
    # Then no term of the p-value falls while epsilon rises: what rules out an epsilon rules out all smaller ones.
    fits = method == "f_dp" or 2 * canaries * delta <= 1
    require_audit(fits, "delta", delta, f"at most 1 / (2 * {canaries}), two times the canaries")


def require_audit(holds: bool, name: str, value: object, expected: str) -> None:
    """Raise E159 unless `holds`."""
    require(holds, seen=f"{name} {value!r}", expected=f"{name}: {expected}", fix=f"correct {name}", code="E159")


def _excess(canaries: int, guesses: int, correct: int, mu: float, error: float) -> float:
    """Above 0 where so many right guesses happen with a chance below `error` (2410.22235, algorithms 2 and 3).

    If they happened that often, right and wrong guesses would have at least these shares, `right` and `wrong`, of all
    coins; going down from `correct` by one, the curve says how much more of both there must be; in the end there would
    be more guesses than there are.
    """
    right, wrong = error * correct / canaries, error * (guesses - correct) / canaries
    for fewer in range(correct - 1, -1, -1):
        more = max(wrong, float(ndtr(ndtri(right) - mu)))
        if more == wrong:
            break  # and it stays so: nothing changes any more
        right = min(1.0, right + fewer / (guesses - fewer) * (more - wrong))
        wrong = more
    return right + wrong - guesses / canaries


def _last(holds: Callable[[float], bool], low: float) -> float:
    """A point where `holds`, hardly below the first where it does not; it holds at `low` and not for ever."""
    step = 0.5
    while holds(low + step):
        low, step = low + step, 2 * step
    while step > _FINE:
        step /= 2
        low += step if holds(low + step) else 0.0
    return low

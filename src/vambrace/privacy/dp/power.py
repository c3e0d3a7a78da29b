"""How many canaries an audit needs, before any is trained: what it would find of a right and of a faulty trainer.

    >>> power(AuditDesign(epsilon=1.0, delta=1e-5), canaries=2000, guesses=1000).fault_seen > 0.99
    True

The trainer is taken to add Gaussian noise that is just enough for the claim. A canary's score is the sum of all steps:
noise for one that is out, and beside it one clip norm for each step that drew it for one that is in; a faulty trainer
adds less noise. Given the scores, guesses are right independently of each other, so the numbers of right guesses of
"in" and of "out" are nearly binomial. Needs no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from scipy.optimize import brentq  # pyright: ignore[reportUnknownVariableType]
from scipy.special import ndtr  # pyright: ignore[reportUnknownVariableType]
from scipy.stats import binom

from vambrace.core.options import Options, Ratio
from vambrace.privacy.dp.accounting import check_epsilon
from vambrace.privacy.dp.calibration import calibrate
from vambrace.privacy.dp.gdp import gdp_delta
from vambrace.privacy.dp.one_run import Method, check_confidence, check_counts, refutes, require_audit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["AuditDesign", "Power", "Powers", "canaries_needed", "power"]

_SHARES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
_WIDE = 40.0  # standard deviations
_RARE = 1e-15  # how often a canary is drawn, the rarest counts left out


@dataclass(frozen=True, kw_only=True)
class AuditDesign(Options):
    """A claim, and the training that makes it.

    Attributes:
        epsilon: of the claim, above 0.
        delta: of the claim, above 0, below 1.
        sample_rate: chance that a step draws a canary, above 0, at most 1: every canary in every step.
        steps: of training, 1 or more.
        noise_multiplier: of every step, above 0; None: the least that the claim allows.
        confidence: of the bound, above 0, below 1.
        method: see `vambrace.privacy.dp.one_run`.
        fault: the faulty trainer's noise is too small by this factor, above 1.
    """

    epsilon: Ratio
    delta: Ratio
    sample_rate: Ratio = 1.0
    steps: int = 1
    noise_multiplier: Ratio | None = None
    confidence: Ratio = 0.95
    method: Method = "one_run"
    fault: Ratio = 4.0

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)
        check_confidence("f_dp", 1, self.delta, self.confidence)
        require_audit(self.epsilon > 0, "epsilon", self.epsilon, "above 0")
        require_audit(0 < self.sample_rate <= 1, "sample_rate", self.sample_rate, "above 0, at most 1")
        require_audit(self.steps >= 1, "steps", self.steps, "1 or more")
        noisy = self.noise_multiplier is None or self.noise_multiplier > 0
        require_audit(noisy, "noise_multiplier", self.noise_multiplier, "above 0, or None")
        require_audit(1 < self.fault < math.inf, "fault", self.fault, "above 1")

    @cached_property
    def noise(self) -> float:
        """The noise multiplier of every step."""
        if self.noise_multiplier is not None:
            return self.noise_multiplier
        return calibrate(
            epsilon=self.epsilon,
            delta=self.delta,
            steps=self.steps,
            sample_rate=self.sample_rate,
            sampling="full" if self.sample_rate == 1 else "poisson",
        ).noise_multiplier

    @cached_property
    def strength(self) -> float:
        """Of the claim, as `vambrace.privacy.dp.one_run.refutes` takes it."""
        if self.method == "one_run":
            return self.epsilon
        return _root(lambda mu: gdp_delta(mu, self.epsilon) - self.delta, 1e-9, 2 * math.sqrt(self.epsilon + 50))


@dataclass(frozen=True, slots=True, kw_only=True)
class Power(Options):
    """What an audit of so many canaries would find.

    Attributes:
        canaries: coins.
        guesses: how many of them are guessed.
        above_zero: chance that the bound of a right trainer is above 0: that the audit sees anything at all.
        fault_seen: chance that the bound of a faulty trainer exceeds its claim.
    """

    canaries: int
    guesses: int
    above_zero: float
    fault_seen: float

    @property
    def least(self) -> float:
        """The smaller of the two chances."""
        return min(self.above_zero, self.fault_seen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Powers:
    """A power calculation; printed, it is a table.

    Attributes:
        design: what it is for.
        target: chance that both findings shall have.
        rows: one a number of canaries, rising.
    """

    design: AuditDesign
    target: float
    rows: tuple[Power, ...]

    @property
    def enough(self) -> Power | None:
        """The first row in which both chances reach the target; None where there is none."""
        return next((row for row in self.rows if row.least >= self.target), None)

    def __str__(self) -> str:
        design, found = self.design, self.enough
        head = f"claim: epsilon {design.epsilon:g} at delta {design.delta:g}; noise multiplier {design.noise:g}, "
        head += f"sample rate {design.sample_rate:g}, {design.steps:,} steps; fault: noise / {design.fault:g}"
        rows = [
            f"{row.canaries:8,d}  {row.guesses:7,d}  {row.above_zero:28.4f}  {row.fault_seen:32.4f}"
            for row in self.rows
        ]
        table = ["canaries  guesses  P(bound > 0), right trainer  P(bound > claim), faulty trainer", *rows]
        needed = f"{found.canaries:,} canaries" if found else f"more than {self.rows[-1].canaries:,} canaries"
        return "\n".join([head, *table, f"needed for {100 * self.target:g} % of audits: {needed}"])


def power(design: AuditDesign, *, canaries: int, guesses: int | None = None) -> Power:
    """What an audit would find.

    Args:
        design: of the audit.
        canaries: how many coins.
        guesses: how many of them to guess; None: as many as serve best, so that the less likely of the two findings is
            as likely as can be.

    Raises:
        ConfigError: E159, for values out of range; E144, for a claim that no noise keeps.
        MissingExtra: E112, without dp-accounting, where noise has to be found.
    """
    check_confidence(design.method, canaries, design.delta, design.confidence)
    tried = [guesses] if guesses is not None else sorted({max(1, round(share * canaries)) for share in _SHARES})
    best: tuple[float, Power] | None = None
    for count in tried:
        check_counts(canaries, count, 0)
        # Chances of a miss and not of a find: those are too near to 1 to be told apart.
        unseen = _missed(design, canaries, count, noise=design.noise, strength=0.0)
        missed = _missed(design, canaries, count, noise=design.noise / design.fault, strength=design.strength)
        if best is None or max(unseen, missed) < best[0]:
            found = Power(canaries=canaries, guesses=count, above_zero=1 - unseen, fault_seen=1 - missed)
            best = max(unseen, missed), found
    assert best is not None  # noqa: S101  at least one count was tried
    return best[1]


def canaries_needed(
    design: AuditDesign, *, target: float = 0.99, among: Sequence[int] = tuple(range(1000, 10001, 1000))
) -> Powers:
    """The power calculation for several numbers of canaries.

    Args:
        design: of the audit.
        target: the chance that both findings shall have.
        among: numbers of canaries, rising.

    Raises:
        ConfigError: as `power`.
    """
    return Powers(design=design, target=target, rows=tuple(power(design, canaries=each) for each in among))


def _missed(design: AuditDesign, canaries: int, guesses: int, *, noise: float, strength: float) -> float:
    """Chance that the right guesses do not rule out a claim of this strength."""
    error = 1 - design.confidence
    low, high = -1, guesses + 1
    while high - low > 1:
        middle = (low + high) // 2
        enough = refutes(design.method, canaries, guesses, middle, strength, design.delta, error)
        low, high = (low, middle) if enough else (middle, high)
    top = (guesses + 1) // 2
    high_end, low_end = _rightly(design, noise, guesses / canaries)
    right = np.arange(min(low, top) + 1)  # of the guesses of "in"; the rest is left to those of "out"
    rest = np.minimum(low - right, guesses - top)
    return float(binom.pmf(right, top, high_end) @ binom.cdf(rest, guesses - top, low_end))


def _rightly(design: AuditDesign, noise: float, share: float) -> tuple[float, float]:
    """How likely guesses of "in" and of "out" are right when this share of all canaries is guessed, half by each.

    Scores are in units of their noise.
    """
    steps = design.steps
    drawn = np.arange(steps + 1)
    weight = binom.pmf(drawn, steps, design.sample_rate)
    shifts, weight = drawn[weight > _RARE] / (noise * math.sqrt(steps)), weight[weight > _RARE]
    weight = weight / weight.sum()

    def above(score: float, *, included: bool) -> float:
        return float(weight @ ndtr(shifts - score)) if included else float(ndtr(-score))

    def beyond(score: float, part: float) -> float:
        return (above(score, included=True) + above(score, included=False)) / 2 - part

    part = share / 2
    highest = _root(partial(beyond, part=part), -_WIDE, _WIDE + shifts[-1])
    lowest = _root(partial(beyond, part=1 - part), -_WIDE, _WIDE + shifts[-1])
    right = above(highest, included=True), 1 - above(lowest, included=False)
    return min(1.0, right[0] / share), min(1.0, right[1] / share)  # rounding alone exceeds 1


def _root(change: Callable[[float], float], low: float, high: float) -> float:
    return cast("float", cast("Any", brentq)(change, low, high, xtol=1e-12))

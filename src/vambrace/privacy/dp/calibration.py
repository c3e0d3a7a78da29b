"""The noise, the steps, or the batch that a budget allows: whichever of the three was left out.

    >>> found = calibrate(epsilon=3.0, delta=1e-5, accountant="rdp", batch_size=256, dataset_size=60000, steps=14040)
    >>> round(found.noise_multiplier, 3)
    1.014

What comes out never exceeds the target: it is rounded to the safe side and accounted for again. Imports no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from vambrace.core.options import Options, require
from vambrace.errors import ConfigError
from vambrace.privacy.dp import accounting
from vambrace.privacy.dp.accounting import (
    Guarantee,
    charge_of,
    check_accountant,
    check_delta,
    check_epsilon,
    check_steps,
)
from vambrace.privacy.dp.charges import Charge, Spent
from vambrace.privacy.dp.edges import fitting, last_that_fits

if TYPE_CHECKING:
    from vambrace.privacy.dp.accounting import Accountant
    from vambrace.privacy.dp.charges import Mechanism, Sampling

__all__ = ["Calibration", "calibrate"]

_LEAST_NOISE, _MOST_NOISE = 2.0**-6, 2.0**20
_LEAST_RATE = 2.0**-30
_MOST_STEPS = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration(Options):
    """A training that stays within a target.

    Attributes:
        noise_multiplier, sample_rate, steps: of every step, and how many.
        batch_size: expected samples in a batch; 0 where no size was given.
        guarantee: what holds for it, computed for exactly these numbers.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int
    batch_size: int
    guarantee: Guarantee

    def clip_norm(self, noise_deviation: float) -> float:
        """The largest clip norm for which noise of this standard deviation on the sum is enough."""
        return noise_deviation / self.noise_multiplier


def calibrate(
    *,
    epsilon: float,
    delta: float,
    accountant: Accountant = "pld",
    noise_multiplier: float | None = None,
    steps: int | None = None,
    sample_rate: float | None = None,
    batch_size: int | None = None,
    dataset_size: int | None = None,
    sampling: Sampling = "poisson",
    mechanism: Mechanism = "gaussian",
) -> Calibration:
    """The least noise, the most steps or the largest batch for which `epsilon` holds at `delta`.

    Args:
        epsilon: target, above 0.
        delta: above 0, below 1.
        accountant: as for `vambrace.privacy.dp.accounting.epsilon`.
        noise_multiplier: leave it out to find the least, to 5 digits.
        steps: leave it out to find the most.
        sample_rate: probability that a sample is in a batch; or give both sizes. Leave it and `batch_size` out to find
            the largest: a whole number of samples where `dataset_size` is given, else a rate.
        batch_size: samples in a batch, as for `vambrace.privacy.dp.accounting.epsilon`.
        dataset_size: samples in all.
        sampling: as `Charge.sampling`.
        mechanism: as `Charge.mechanism`.

    Raises:
        ConfigError: E144, for values out of range, for steps that this accountant cannot account for, where no value
            meets the target, and unless exactly one of noise, steps and batch is left out.
        MissingExtra: E112, without dp-accounting.
    """
    check_epsilon(epsilon)
    check_delta(delta)
    check_accountant(accountant)
    for name, value in (("epsilon", epsilon), ("noise_multiplier", noise_multiplier), ("steps", steps)):
        _require_above_zero(name, value)
    if steps is not None:
        check_steps(steps)
    rated = sampling == "full" or sample_rate is not None or (batch_size is not None and dataset_size is not None)
    given = {"noise_multiplier": noise_multiplier is not None, "steps": steps is not None, "the batch": rated}
    left_out = [name for name, there in given.items() if not there]
    if len(left_out) != 1:
        raise ConfigError(
            "E144",
            seen=f"{' and '.join(left_out) or 'nothing'} left out",
            expected="exactly one of noise_multiplier, steps and the batch (sample_rate, or both sizes) left out",
            fix="give two of the three; with all three, dp.epsilon says what they cost",
        )
    target = _Target(epsilon, delta, accountant, dataset_size, sampling, mechanism)
    if noise_multiplier is None and steps is not None:
        noise_multiplier = target.least_noise(steps, sample_rate, batch_size)
    elif steps is None and noise_multiplier is not None:
        steps = target.most_steps(target.step(noise_multiplier, sample_rate, batch_size))
    elif noise_multiplier is not None and steps is not None:
        if dataset_size is not None:
            batch_size = target.largest_batch(noise_multiplier, steps, dataset_size)
        else:
            sample_rate = target.largest_rate(noise_multiplier, steps)
    if noise_multiplier is None or steps is None:
        raise AssertionError("one of the three was left out, and found")
    charge = target.step(noise_multiplier, sample_rate, batch_size)
    return Calibration(
        noise_multiplier=noise_multiplier,
        sample_rate=charge.sample_rate,
        steps=steps,
        batch_size=batch_size or 0,
        guarantee=target.cost(charge, steps, accountant),
    )


@dataclass(frozen=True, slots=True)
class _Target:
    """What must hold, and the searches for the most that does."""

    epsilon: float
    delta: float
    accountant: Accountant
    dataset_size: int | None
    sampling: Sampling
    mechanism: Mechanism

    @property
    def ladder(self) -> tuple[Accountant, ...]:
        """What fits by rdp fits by pld, and is found in a fraction of the time: the search by pld starts there."""
        quick = self.accountant == "pld" and self.sampling != "truncated_poisson"
        return ("rdp", "pld") if quick else (self.accountant,)

    def step(self, noise: float, rate: float | None, batch: int | None) -> Charge:
        return charge_of(
            noise_multiplier=noise,
            sample_rate=rate,
            batch_size=batch,
            dataset_size=self.dataset_size,
            sampling=self.sampling,
            mechanism=self.mechanism,
        )

    def cost(self, charge: Charge, steps: int, by: Accountant) -> Guarantee:
        return accounting.epsilon(Spent([(charge, steps)]), delta=self.delta, accountant=by)

    def fits(self, charge: Charge, steps: int, by: Accountant) -> bool:
        return self.cost(charge, steps, by).epsilon <= self.epsilon

    def excess(self, charge: Charge, steps: int, by: Accountant) -> float:
        """Above 0 exactly where it does not fit."""
        found = self.cost(charge, steps, by).epsilon
        return math.log(found / self.epsilon) if 0 < found < math.inf else -math.inf if found == 0 else math.inf

    def least_noise(self, steps: int, rate: float | None, batch: int | None) -> float:
        found: float | None = None
        for by in self.ladder:
            excess = partial(self._noise_excess, steps, rate, batch, by)
            stride, safe = (2.0, 1.0) if found is None else (1.1, found)
            while excess(safe) > 0:
                safe *= stride
                _require_met(safe <= _MOST_NOISE, f"a noise multiplier of {_MOST_NOISE:g}")
            while safe / stride >= _LEAST_NOISE and excess(safe / stride) <= 0:
                safe /= stride
            found = fitting(excess, safe / stride, safe) if safe / stride >= _LEAST_NOISE else safe
        return found or 0.0

    def _noise_excess(self, steps: int, rate: float | None, batch: int | None, by: Accountant, noise: float) -> float:
        return self.excess(self.step(noise, rate, batch), steps, by)

    def most_steps(self, charge: Charge) -> int:
        found = 0
        for by in self.ladder:
            found = last_that_fits(partial(self.fits, charge, by=by), known=found, limit=_MOST_STEPS)
        _require_met(found > 0, "one step")
        return found

    def largest_batch(self, noise: float, steps: int, dataset_size: int) -> int:
        found = 0
        for by in self.ladder:
            found = last_that_fits(partial(self._batch_fits, noise, steps, by), known=found, limit=dataset_size)
        _require_met(found > 0, "a batch of one sample")
        return found

    def _batch_fits(self, noise: float, steps: int, by: Accountant, batch: int) -> bool:
        return self.fits(self.step(noise, None, batch), steps, by)

    def largest_rate(self, noise: float, steps: int) -> float:
        found: float | None = None
        for by in self.ladder:
            excess = partial(self._rate_excess, noise, steps, by)
            stride, safe = (4.0, 1.0) if found is None else (1.1, found)
            while excess(safe) > 0:
                safe /= stride
                _require_met(safe >= _LEAST_RATE, f"a sample rate of {_LEAST_RATE:.1e}")
            while safe < 1 and excess(min(1.0, safe * stride)) <= 0:
                safe = min(1.0, safe * stride)
            found = fitting(excess, min(1.0, safe * stride), safe) if safe < 1 else 1.0
        return found or 0.0

    def _rate_excess(self, noise: float, steps: int, by: Accountant, rate: float) -> float:
        return self.excess(self.step(noise, rate, None), steps, by)


def _require_met(holds: bool, what: str) -> None:
    require(
        holds,
        seen=f"even {what} exceeds the target",
        expected="a target that can be met",
        fix="a larger epsilon or delta, more noise, fewer steps or a smaller batch",
        code="E144",
    )


def _require_above_zero(name: str, value: float | None) -> None:
    holds = value is None or value > 0
    require(holds, seen=f"{name} {value!r}", expected=f"{name}: above 0", fix=f"correct {name}", code="E144")

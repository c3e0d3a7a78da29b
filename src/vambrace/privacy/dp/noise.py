"""Noise on the clipped sum of a step: how much, of which law, and the word it is charged under.

    >>> AdaptiveGaussian(noise_multiplier=2.0, decay="time", rate=0.01).multiplier(0)
    2.0

Every mechanism is a value. The trainer asks it for the `multiplier` of a step, charges that number, and lets the same
object add the noise of the same step: what is charged is what is added. All noise is on the clipped *sum*, one flat
draw for all parameters, and scales with the sensitivity that it is given: a clip norm that moves takes its noise along.

Gaussian: Abadi et al. 2016, arXiv 1607.00133, algorithm 1. Laplace: Dwork, McSherry, Nissim, Smith 2006, "Calibrating
Noise to Sensitivity in Private Data Analysis". Discrete Gaussian: Canonne, Kamath, Steinke 2020, arXiv 2004.00010.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from vambrace.core.options import Options, Ratio, require
from vambrace.privacy.dp.charges import Mechanism  # noqa: TC001  read at run time
from vambrace.privacy.dp.discrete import LARGEST

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.privacy.dp.secret import Secret

__all__ = ["AdaptiveGaussian", "Decay", "DiscreteGaussian", "Gaussian", "Laplace", "Noise"]

Decay = Literal["time", "step", "exponential"]

LEVELS = 64  # of a decaying multiplier: what an accountant has to tell apart
_CHUNK = 2**16
_FARTHEST_CELL = 2.0**51  # of the integer grid: sum and noise stay whole numbers that float64 holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise(Options):
    """Base of the mechanisms.

    Attributes:
        noise_multiplier: of the first step: the noise's standard deviation (Laplace: its scale) over the sensitivity of
            the sum, 0 or more. 0 adds nothing, for debugging: no finite epsilon.

    Raises:
        ConfigError: E146, an option is out of range.
    """

    ord: ClassVar[Literal["l1", "l2"]] = "l2"
    law: ClassVar[Mechanism]

    noise_multiplier: Ratio

    def __post_init__(self) -> None:
        fits = math.isfinite(self.noise_multiplier) and self.noise_multiplier >= 0
        _require(fits, "noise_multiplier", self.noise_multiplier, "a finite number, 0 or more")

    @property
    def mechanism(self) -> Mechanism:
        """The word of `Charge.mechanism`: the law of the noise, or "none" where there is no noise."""
        return self.law if self.noise_multiplier else "none"

    def multiplier(self, step: int) -> float:
        """The noise multiplier of a step, counted from 0: what is added and what must be charged."""
        _require(step >= 0, "step", step, "0 or more")
        return self.noise_multiplier

    def add_(self, flat_sum: Tensor, sensitivity: float, step: int, secret: Secret) -> None:
        """Add the noise of one step to a clipped sum, in place.

        Args:
            flat_sum: (d,) contiguous, float32 or float64, all parameters in one piece. On another device than the CPU,
                the noise is drawn on the CPU and moved.
            sensitivity: the most that one sample can move the sum, in the norm `ord`, above 0. Infinite is allowed
                where the multiplier is 0.
            step: counted from 0; the one that is charged.
            secret: where the randomness comes from.

        Raises:
            ConfigError: E146, for any other tensor or sensitivity.
        """
        fits = flat_sum.dim() == 1 and flat_sum.is_contiguous() and flat_sum.dtype in {torch.float32, torch.float64}
        seen = f"{flat_sum.dtype} {tuple(flat_sum.shape)}"
        _require(fits, "flat_sum", seen, "contiguous, one-dimensional, float32 or float64")
        _require(sensitivity > 0, "sensitivity", sensitivity, "above 0")
        multiplier = self.multiplier(step)
        if multiplier == 0:
            return
        scale = multiplier * sensitivity
        usable = torch.finfo(torch.float32).tiny <= scale <= torch.finfo(torch.float32).max
        _require(usable, "noise_multiplier * sensitivity", scale, "a number that float32 holds")
        with torch.no_grad():
            self._add(flat_sum, multiplier, sensitivity, secret)

    @abstractmethod
    def _add(self, flat_sum: Tensor, multiplier: float, sensitivity: float, secret: Secret) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaussian(Noise):
    """Normal noise of one multiplier, for sums clipped in l2. The default; a floating-point approximation."""

    law: ClassVar[Mechanism] = "gaussian"

    def _add(self, flat_sum: Tensor, multiplier: float, sensitivity: float, secret: Secret) -> None:
        if flat_sum.device.type == "cpu":
            secret.add_normal_(flat_sum, multiplier * sensitivity)
        else:
            drawn = secret.normal(flat_sum.numel(), dtype=flat_sum.dtype)
            flat_sum.add_(drawn.to(flat_sum.device), alpha=multiplier * sensitivity)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveGaussian(Gaussian):
    """Normal noise whose multiplier falls as training goes on: less noise where gradients are small.

    The formula gives N_t for step t: "time" N_0 / (1 + rate t), "step" N_0 (1 - rate)^t, "exponential"
    N_0 exp(-rate t), as in MindArmour. The multiplier used, and charged, is N_t rounded down to one of at most 64
    levels in geometric order from `noise_multiplier` to the floor, so that accounting composes at most 64 different
    mechanisms. Above the floor that is less than 3.6 % below the formula, with the default floor.

    Attributes:
        noise_multiplier: N_0, above 0.
        decay: which formula.
        rate: of the decay a step, 0 or more; below 1 for "step".
        floor: where the multiplier stops falling, above 0, at most `noise_multiplier`; None is a tenth of it.
    """

    decay: Decay
    rate: Ratio
    floor: Ratio | None = None

    def __post_init__(self) -> None:
        Noise.__post_init__(self)
        _require(self.noise_multiplier > 0, "noise_multiplier", self.noise_multiplier, "above 0 where it decays")
        _require(self.decay in {"time", "step", "exponential"}, "decay", self.decay, '"time", "step" or "exponential"')
        fits = math.isfinite(self.rate) and self.rate >= 0 and (self.rate < 1 or self.decay != "step")
        _require(fits, "rate", self.rate, '0 or more, and below 1 for "step"')
        fits = self.floor is None or 0 < self.floor <= self.noise_multiplier
        _require(fits, "floor", self.floor, "above 0, at most noise_multiplier")

    def formula(self, step: int) -> float:
        """N_t before it is rounded to a level."""
        _require(step >= 0, "step", step, "0 or more")
        match self.decay:
            case "time":
                return self.noise_multiplier / (1 + self.rate * step)
            case "step":
                return self.noise_multiplier * (1 - self.rate) ** step
            case "exponential":
                return self.noise_multiplier * math.exp(-self.rate * step)

    def multiplier(self, step: int) -> float:
        floor = self.noise_multiplier / 10 if self.floor is None else self.floor
        levels = _levels(floor, self.noise_multiplier)
        return levels[max(0, bisect_right(levels, self.formula(step)) - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Laplace(Noise):
    """Laplace noise, for sums clipped in l1: pure differential privacy, heavier tails.

    `noise_multiplier` is the scale over the l1 sensitivity; the standard deviation is sqrt(2) times as much. An l1 ball
    that is no smaller than a gradient's l2 ball is far larger, so for more than a few hundred parameters `Gaussian` is
    the better choice.
    """

    ord: ClassVar[Literal["l1", "l2"]] = "l1"
    law: ClassVar[Mechanism] = "laplace"

    def _add(self, flat_sum: Tensor, multiplier: float, sensitivity: float, secret: Secret) -> None:
        drawn = secret.laplace(flat_sum.numel()).mul_(multiplier * sensitivity)
        flat_sum.add_(drawn.to(flat_sum.device, flat_sum.dtype))


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscreteGaussian(Noise):
    """Gaussian noise on an integer grid, drawn exactly: nothing is left in the low bits of a floating-point number.

    The sum is rounded to the nearest point of a grid whose spacing is a power of two, at most `grid` sensitivities;
    noise is a whole number of spacings. Rounding moves each of two neighbouring sums by at most half a spacing a
    coordinate, so it adds at most sqrt(d) spacings to their distance. The noise is raised for that: its parameter is
    multiplier * (sensitivity + spacing * sqrt(d)), and the multiplier that is charged stays true. With the default grid
    and a million parameters that is 0.1 % more noise.

    Not covered: how the sum was computed. Its own rounding, and a clip factor that is off by one, are floating point.

    Attributes:
        noise_multiplier: as for `Gaussian`.
        grid: the largest spacing over the sensitivity, 2^-30 to 1.
    """

    law: ClassVar[Mechanism] = "discrete_gaussian"

    grid: Ratio = 2.0**-20

    def __post_init__(self) -> None:
        Noise.__post_init__(self)
        _require(2.0**-30 <= self.grid <= 1, "grid", self.grid, "2**-30 to 1")

    def spacing(self, sensitivity: float) -> float:
        """The distance of neighbouring grid points: the largest power of two that is at most grid * sensitivity."""
        return math.ldexp(0.5, math.frexp(self.grid * sensitivity)[1])

    def _add(self, flat_sum: Tensor, multiplier: float, sensitivity: float, secret: Secret) -> None:
        spacing = self.spacing(sensitivity)
        # The first factor makes up for the rounding of the others: the parameter is never below what it should be.
        parameter = (1 + 2.0**-50) * multiplier * (sensitivity / spacing + math.sqrt(flat_sum.numel()))
        _require(parameter <= LARGEST, "grid", self.grid, f"coarser, for noise of at most {LARGEST:.3g} spacings")
        for start in range(0, flat_sum.numel(), _CHUNK):
            part = flat_sum[start : start + _CHUNK]
            # Dividing by a power of two is exact. Far cells are brought in, which moves no two sums further apart.
            cells = (part.to("cpu", torch.float64) / spacing).round_().clamp_(-_FARTHEST_CELL, _FARTHEST_CELL)
            cells += secret.discrete_gaussian(part.numel(), parameter)
            part.copy_(cells.mul_(spacing))


@lru_cache(maxsize=16)
def _levels(lowest: float, highest: float) -> tuple[float, ...]:
    """`LEVELS` numbers in geometric order, rising; both ends are exact."""
    ratio = lowest / highest
    inner = (highest * ratio ** (number / (LEVELS - 1)) for number in range(LEVELS - 2, 0, -1))
    return (lowest, *inner, highest) if ratio < 1 else (highest,)


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    require(holds, seen=f"{name} {value!r}", expected=f"{name}: {expected}", fix=f"correct {name}", code="E146")

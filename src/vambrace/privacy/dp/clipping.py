"""How far one sample may move the sum: options, and the mathematics from norms to factors.

    >>> import torch
    >>> Flat(clip_norm=1.0).factors(torch.tensor([[0.5, 2.0]]), (1.0,))
    tensor([[1.0000, 0.5000]])

Whatever is chosen, a clipped gradient is no longer than `sensitivity`, the one number that noise is measured in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from vambrace.core.options import Options, Ratio, require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["AdaptiveQuantile", "Automatic", "Clipping", "Flat", "PerLayer", "moved", "require_option"]


_SHORTEST = 1e-6
"""The smallest clip norm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clipping(Options):
    """Base of the four ways to clip.

    Attributes:
        clip_norm: what a sample's gradient is cut to, in all.
    """

    clip_norm: Ratio = 1.0

    def __post_init__(self) -> None:
        # Squares of gradients much shorter than this vanish in float32, so nobody could tell that they are too long.
        require_option(
            self.clip_norm >= _SHORTEST, "clip_norm", self.clip_norm, f"at least {_SHORTEST:g} (inf: no clip)"
        )

    @property
    def order(self) -> Literal["l1", "l2"]:
        """The norm that is clipped; noise of the Laplace mechanism needs "l1"."""
        return "l2"

    def groups(self, names: Sequence[str]) -> list[list[int]]:
        """Numbers of the parameters that are clipped together."""
        return [list(range(len(names)))]

    def norms(self, groups: int) -> tuple[float, ...]:
        """The bound of each group at the first step; their root sum of squares is `clip_norm`."""
        return (self.clip_norm / math.sqrt(groups),) * groups

    def factors(self, norms: Tensor, bounds: Sequence[float]) -> Tensor:
        """Norms (g, n) to factors (g, n), such that no group is longer than its bound."""
        bound = norms.new_tensor(bounds).unsqueeze(1)
        # A zero norm needs no cut, and an infinite bound cuts nothing.
        return torch.where(norms > bound, bound / norms, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flat(Clipping):
    """Cut the whole gradient to `clip_norm` (Abadi et al. 2016, arXiv 1607.00133, algorithm 1).

    Attributes:
        norm: "l2", or "l1" for Laplace noise.
    """

    norm: Literal["l1", "l2"] = "l2"

    @property
    def order(self) -> Literal["l1", "l2"]:
        return self.norm


@dataclass(frozen=True, slots=True, kw_only=True)
class PerLayer(Clipping):
    """Cut the gradient of every layer (the parameters of one module) on its own, to `clip_norm / sqrt(layers)`.

    Attributes:
        clip_norms: a bound for every layer, in the order of the parameters; empty: equal ones. With it `clip_norm` must
            be left out: it is the root sum of squares.
    """

    clip_norms: tuple[Ratio, ...] = ()

    def __post_init__(self) -> None:
        require_option(
            all(each >= _SHORTEST for each in self.clip_norms),
            "clip_norms",
            self.clip_norms,
            f"all at least {_SHORTEST:g}",
        )
        if self.clip_norms:
            whole = math.hypot(*self.clip_norms)
            require_option(self.clip_norm in (1.0, whole), "clip_norm", self.clip_norm, "left out beside clip_norms")
            object.__setattr__(self, "clip_norm", whole)
        Clipping.__post_init__(self)

    def groups(self, names: Sequence[str]) -> list[list[int]]:
        found: dict[str, list[int]] = {}
        for number, name in enumerate(names):
            found.setdefault(name.rpartition(".")[0], []).append(number)
        if self.clip_norms:
            given = len(self.clip_norms)
            require_option(given == len(found), "clip_norms", f"of {given} layers", f"{len(found)}: {', '.join(found)}")
        return list(found.values())

    def norms(self, groups: int) -> tuple[float, ...]:
        return self.clip_norms or Clipping.norms(self, groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class Automatic(Clipping):
    """Scale every gradient to nearly `clip_norm`, short ones up (Bu et al. 2022, arXiv 2206.07136, section 4).

    Attributes:
        stability: added to the norm, so that gradients near zero stay short.
    """

    stability: Ratio = 0.01

    def __post_init__(self) -> None:
        Clipping.__post_init__(self)
        require_option(math.isfinite(self.clip_norm), "clip_norm", self.clip_norm, "finite")
        require_option(self.stability > 0, "stability", self.stability, "above 0")

    def factors(self, norms: Tensor, bounds: Sequence[float]) -> Tensor:
        return norms.new_tensor(bounds).unsqueeze(1) / (norms + self.stability)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveQuantile(Clipping):
    """Flat clipping whose bound follows a quantile of the norms by a noisy count (Andrew et al. 2021, 1905.03871).

    Each step releases how many of its samples were not cut, less half of them, with Gaussian noise of standard
    deviation `count_noise`. One sample moves that number by one half. The release is an event of its own in the budget,
    and the noise on gradients is always measured in the bound of the very step.

    Attributes:
        clip_norm: the first bound.
        quantile: the share of samples that shall not be cut.
        learning_rate: of the update.
        count_noise: standard deviation; the paper takes a twentieth of the expected batch.
        update: "geometric" multiplies by exp(-learning_rate (share - quantile)), "linear" subtracts.
        least: the bound never falls below.
        most: nor rises above.
    """

    quantile: Ratio = 0.5
    learning_rate: Ratio = 0.2
    count_noise: Ratio
    update: Literal["geometric", "linear"] = "geometric"
    least: Ratio = _SHORTEST
    most: Ratio = 1e6

    def __post_init__(self) -> None:
        Clipping.__post_init__(self)
        require_option(0 < self.quantile < 1, "quantile", self.quantile, "between 0 and 1")
        require_option(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        require_option(self.count_noise > 0, "count_noise", self.count_noise, "above 0: the count is a release too")
        held = _SHORTEST <= self.least <= self.clip_norm <= self.most < math.inf
        require_option(
            held, "clip_norm", self.clip_norm, f"from least {self.least} (at least {_SHORTEST:g}) to most {self.most}"
        )

    @property
    def count_noise_multiplier(self) -> float:
        """Of the count, over its sensitivity of one half."""
        return 2.0 * self.count_noise

    def follow(self, bound: float, noisy_count: float, expected_batch_size: float) -> float:
        """The next bound, from the noisy count of samples that were not cut, less half of the batch."""
        return moved(
            bound,
            noisy_count / expected_batch_size + 0.5 - self.quantile,
            learning_rate=self.learning_rate,
            update=self.update,
            least=self.least,
            most=self.most,
        )


def moved(
    bound: float,
    excess: float,
    *,
    learning_rate: float,
    update: Literal["geometric", "linear"],
    least: float,
    most: float,
) -> float:
    """A clip norm after one update (Andrew et al. 2021, section 2): down where more samples than wanted were not cut.

    >>> moved(1.0, 0.5, learning_rate=0.2, update="linear", least=0.01, most=10.0)
    0.9
    """
    # An exponent beyond these leads to `least` or `most` anyway, and exp would overflow.
    step = max(-50.0, min(50.0, learning_rate * excess))
    found = bound * math.exp(-step) if update == "geometric" else bound - step
    return min(most, max(least, found))


def require_option(holds: bool, name: str, value: object, expected: str) -> None:
    """Raise `ConfigError` E150 unless an option of private training holds."""
    require(holds, seen=f"{name} {value!r}", expected=f"{name} {expected}", fix=f"correct {name}", code="E150")

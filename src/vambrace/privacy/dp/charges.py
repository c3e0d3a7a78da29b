"""What a step of private training costs, as values: the one language of trainer, ledger and accountant.

    >>> charge = Charge(mechanism="gaussian", noise_multiplier=1.1, sampling="poisson", sample_rate=256 / 60000)
    >>> Spent((charge, charge)).steps
    2

A trainer makes one `Charge` for every step from the objects that sample, clip and add the noise; a ledger stores runs
of equal ones; an accountant turns them into epsilon. Nobody types one of these numbers twice. Imports no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vambrace.core.options import Options, Ratio, require

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Charge", "Mechanism", "Sampling", "Spent"]

Mechanism = Literal["gaussian", "discrete_gaussian", "laplace", "none"]
Sampling = Literal["poisson", "truncated_poisson", "fixed_size", "shuffle", "full"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge(Options):
    """The cost of one step.

    Attributes:
        mechanism: noise on the clipped sum: "gaussian" on l2-clipped sums, "discrete_gaussian" the same on an integer
            grid, "laplace" on l1-clipped sums; "none" is a step without noise, whose epsilon is infinite.
        noise_multiplier: standard deviation (Laplace: scale) of the noise over the clip norm, which is how far one
            sample that comes or goes moves the sum; where one is replaced, the accountant doubles that itself.
        sampling: how the batch was chosen: "poisson" (every sample on its own coin), "truncated_poisson" (at most
            `batch_size` of them), "fixed_size" (without replacement; neighbours replace one sample), "shuffle" (each
            sample once an epoch: not amplified), "full" (every sample, always).
        sample_rate: probability that a sample is in the batch; for "shuffle" the share of an epoch that a step takes.
        dataset_size: samples in all; needed for "truncated_poisson" and "fixed_size", else 0.
        batch_size: the most ("truncated_poisson") or exact ("fixed_size") number of samples; else 0.
        count_noise_multiplier: of the noisy count that adapts the clip norm in the same step, over the half by which
            one sample moves it; 0: there is none.
        private: False in debug mode, whose noise can be reproduced: such a step has no finite epsilon that counts.
    """

    mechanism: Mechanism
    noise_multiplier: Ratio
    sampling: Sampling
    sample_rate: Ratio
    dataset_size: int = 0
    batch_size: int = 0
    count_noise_multiplier: Ratio = 0.0
    private: bool = True

    def __post_init__(self) -> None:
        finite = math.isfinite(self.noise_multiplier) and self.noise_multiplier >= 0
        _require(finite, "noise_multiplier", self.noise_multiplier, "a finite number, 0 or more")
        _require(0 < self.sample_rate <= 1, "sample_rate", self.sample_rate, "above 0, at most 1")
        silent = self.mechanism == "none"
        _require(silent == (self.noise_multiplier == 0), "mechanism", self.mechanism, '"none" exactly at noise 0')
        _require(self.sampling != "full" or self.sample_rate == 1, "sample_rate", self.sample_rate, '1 for "full"')
        sized = self.sampling in ("truncated_poisson", "fixed_size")
        _require(sized == (self.dataset_size > 0), "dataset_size", self.dataset_size, "given where sizes matter")
        _require(sized == (self.batch_size > 0), "batch_size", self.batch_size, "given where sizes matter")
        counted = math.isfinite(self.count_noise_multiplier) and self.count_noise_multiplier >= 0
        _require(counted, "count_noise_multiplier", self.count_noise_multiplier, "a finite number, 0 or more")


@dataclass(frozen=True, slots=True)
class Spent:
    """Charges in the order of their steps, runs of equal ones kept as one.

    Attributes:
        runs: (charge, how many steps), neighbours differ. Given plain charges, they are put together.
    """

    runs: tuple[tuple[Charge, int], ...]

    def __init__(self, charges: Iterable[Charge | tuple[Charge, int]] = ()) -> None:
        runs: list[tuple[Charge, int]] = []
        for each in charges:
            charge, steps = (each, 1) if isinstance(each, Charge) else each
            _require(steps >= 0, "steps", steps, "0 or more")
            if runs and runs[-1][0] == charge:
                runs[-1] = (charge, runs[-1][1] + steps)
            elif steps:
                runs.append((charge, steps))
        object.__setattr__(self, "runs", tuple(runs))

    @property
    def steps(self) -> int:
        """Steps in all."""
        return sum(steps for _, steps in self.runs)

    def __add__(self, other: Spent) -> Spent:
        return Spent((*self.runs, *other.runs))

    def __iter__(self) -> Iterator[tuple[Charge, int]]:
        return iter(self.runs)

    def merged(self) -> Spent:
        """The same charges, each once, in order of first use: what an accountant needs, since order costs nothing."""
        total: dict[Charge, int] = {}
        for charge, steps in self.runs:
            total[charge] = total.get(charge, 0) + steps
        return Spent(total.items())

    def as_json(self) -> list[dict[str, object]]:
        """One object a run, with the fields of its charge and `steps`."""
        return [{**charge.as_json(), "steps": steps} for charge, steps in self.runs]

    @classmethod
    def from_json(cls, data: Iterable[dict[str, object]]) -> Spent:
        """What `as_json` gave; unknown or missing fields raise TypeError."""
        runs: list[tuple[Charge, int]] = []
        for entry in data:
            fields = dict(entry)
            steps = fields.pop("steps")
            _require(isinstance(steps, int) and not isinstance(steps, bool), "steps", steps, "a whole number")
            runs.append((Charge(**fields), int(str(steps))))  # pyright: ignore[reportArgumentType]  checked by Charge
        return cls(runs)


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    require(holds, seen=f"{name} {value!r}", expected=f"{name}: {expected}", fix=f"correct {name}", code="E144")

"""What charges cost, as mechanisms that compose: whose neighbours, how much noise for one of them, how sampled.

    >>> from vambrace.privacy.dp.charges import Charge, Spent
    >>> step = Charge(mechanism="gaussian", noise_multiplier=1.0, sampling="shuffle", sample_rate=1 / 93)
    >>> [(event.sampling, count) for event, count in events(Spent([(step, 94)])).runs]
    [('full', 2)]

Every accountant here starts from these events, so the four places where accounting goes wrong in silence are decided
once: an epoch of shuffled batches, a neighbour that replaces a sample, a noisy count in the same step, steps that are
not private at all. Imports no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from vambrace.errors import ConfigError
from vambrace.privacy.dp.charges import Charge, Spent

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Event", "Events", "events", "share"]

Kind = Literal["gaussian", "discrete_gaussian", "laplace"]
Sampled = Literal["full", "poisson", "truncated_poisson", "fixed_size"]
Relation = Literal["add_or_remove_one", "replace_one", "zero_out_one"]

_MOST_SAMPLES = 2**26  # shares of fewer samples are read back exactly from their float


@dataclass(frozen=True, slots=True)
class Event:
    """One release of a noisy sum.

    Attributes:
        kind: distribution of the noise.
        noise: standard deviation (Laplace: scale) over what one neighbour moves a sum that holds every sample; for
            "truncated_poisson" over what one sample adds to a sum.
        sampling: how the batch was chosen.
        rate: probability that a sample is in the batch; 1 for "full".
        dataset_size, batch_size: where the sampler needs them, else 0.
    """

    kind: Kind
    noise: float
    sampling: Sampled = "full"
    rate: float = 1.0
    dataset_size: int = 0
    batch_size: int = 0


@dataclass(frozen=True, slots=True)
class Events:
    """All that was released.

    Attributes:
        relation: what neighbouring data are: one sample added or removed, one sample replaced by another, or one
            sample replaced by one that contributes nothing.
        runs: (event, how often), each event once, in order of first use.
        private: False where a step had no noise, or noise that can be reproduced: epsilon is infinite.
    """

    relation: Relation
    runs: tuple[tuple[Event, int], ...]
    private: bool


def events(spent: Spent) -> Events:
    """The events of charges.

    - "poisson" and "full": neighbours add or remove a sample, which moves a sum by the clip norm.
    - "fixed_size": the number of samples is fixed, so neighbours replace one, which moves a sum by up to twice the
      clip norm: half of the noise multiplier counts, also of "full" and "shuffle" steps beside it.
    - "shuffle": an epoch uses each sample once, in one step that nobody chose at random for the accountant: one event
      without amplification for every epoch that has begun, with the least noise of its steps. Batches of a fixed size
      would shift if a sample were missing, so neighbours have one that contributes nothing in its place
      (Kairouz et al. 2021, "Practical and private (deep) learning without sampling or shuffling", definition 1.1).
    - A noisy count in the same step looks at the same batch: two Gaussians on one sample are one Gaussian with
      noise (z^-2 + z_count^-2)^(-1/2) (McMahan et al. 2018, "A general approach to adding differential privacy",
      section 3).

    Args:
        spent: charges in the order of their steps; the order matters to shuffled epochs alone.

    Raises:
        ConfigError: E144, where steps have neighbours that no accountant puts together, and for Laplace noise with a
            noisy count.
    """
    samplings = {charge.sampling for charge, _ in spent}
    replaced = "fixed_size" in samplings
    amplified = samplings & {"poisson", "truncated_poisson"}
    if replaced and amplified:
        raise ConfigError(
            "E144",
            seen=f"steps of sampling 'fixed_size' beside steps of sampling {sorted(amplified)[0]!r}",
            expected="one meaning of neighbouring data: a sample replaced, or a sample added or removed",
            fix="train with one sampler, or account for the two parts apart and state both guarantees",
        )
    relation: Relation = (
        "replace_one" if replaced else "zero_out_one" if "shuffle" in samplings else "add_or_remove_one"
    )
    total: dict[Event, int] = {}
    for charge, count in _unshuffled(spent):
        if charge.mechanism != "none":
            event = _event(charge, halved=replaced)
            total[event] = total.get(event, 0) + count
    private = all(charge.private and charge.mechanism != "none" for charge, _ in spent)
    return Events(relation, tuple(total.items()), private)


def share(rate: float) -> Fraction:
    """The fraction that a float stands for: 256 / 60000 where it was computed as that, else the float's exact value.

    >>> share(1 / 93) * 93
    Fraction(1, 1)
    """
    near = Fraction(rate).limit_denominator(_MOST_SAMPLES)
    return near if float(near) == rate else Fraction(rate)


def _unshuffled(spent: Spent) -> Iterator[tuple[Charge, int]]:
    """The charges with every begun epoch of shuffled steps as one full pass, at its least noise."""
    position = Fraction(0)
    parted: dict[tuple[int, str], Charge] = {}  # epochs that no single run of charges covers
    for charge, steps in spent:
        if charge.sampling != "shuffle" or charge.mechanism == "none":
            yield charge, steps
            continue
        before, position = position, position + share(charge.sample_rate) * steps
        whole = math.floor(position) - math.ceil(before)
        if whole > 0:
            yield charge, whole
        for epoch in {math.floor(before), math.ceil(position) - 1}:
            if before > epoch or position < epoch + 1:
                key = (epoch, charge.mechanism)
                parted[key] = min(parted.get(key, charge), charge, key=_noise)
    yield from ((charge, 1) for charge in parted.values())


def _event(charge: Charge, *, halved: bool) -> Event:
    kind, noise = charge.mechanism, _noise(charge) / (2 if halved else 1)
    if kind == "none":
        raise AssertionError("a step without noise is no event")
    if charge.sampling in ("shuffle", "full") or (charge.sampling != "truncated_poisson" and charge.sample_rate == 1):
        return Event(kind, noise)
    return Event(kind, noise, charge.sampling, charge.sample_rate, charge.dataset_size, charge.batch_size)


def _noise(charge: Charge) -> float:
    if not charge.count_noise_multiplier:
        return charge.noise_multiplier
    if charge.mechanism == "laplace":
        raise ConfigError(
            "E144",
            seen="Laplace noise and a noisy count in the same step",
            expected="Gaussian noise where the clip norm adapts by a count",
            fix="Laplace with a constant clip norm, or Gaussian with the adaptive one",
        )
    return 1 / math.hypot(1 / charge.noise_multiplier, 1 / charge.count_noise_multiplier)

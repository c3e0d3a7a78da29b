"""What private steps cost: epsilon for a delta, delta for an epsilon.

    >>> from vambrace.privacy.dp.charges import Charge, Spent
    >>> step = Charge(mechanism="gaussian", noise_multiplier=1.1, sampling="poisson", sample_rate=256 / 60000)
    >>> round(epsilon(Spent([(step, 14040)]), delta=1e-5).epsilon, 2)
    2.38
    >>> round(epsilon(noise_multiplier=1.1, sample_rate=256 / 60000, steps=14040, delta=1e-5).epsilon, 2)
    2.38

Four accountants: "pld" (privacy loss distributions, the tightest), "rdp" (Renyi), "zcdp" (knows nothing of sampling)
and "gdp" (an approximation, no bound). Imports no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from vambrace.core.options import Options, require
from vambrace.errors import ConfigError
from vambrace.privacy.dp.charges import Charge, Spent
from vambrace.privacy.dp.events import events
from vambrace.privacy.dp.gdp import gdp_delta, gdp_epsilon, gdp_mu
from vambrace.privacy.dp.pld import LossLimit, pld_delta, pld_epsilon
from vambrace.privacy.dp.rdp import rdp_curve, rdp_delta, rdp_epsilon
from vambrace.privacy.dp.zcdp import zcdp_delta, zcdp_epsilon, zcdp_rho

if TYPE_CHECKING:
    from vambrace.privacy.dp.charges import Mechanism, Sampling
    from vambrace.privacy.dp.events import Events, Relation

__all__ = [
    "Guarantee",
    "charge_of",
    "check_accountant",
    "check_delta",
    "check_epsilon",
    "check_steps",
    "delta",
    "epsilon",
]

Accountant = Literal["pld", "rdp", "zcdp", "gdp"]

_ELSEWHERE = {"prv": "pld", "glw": "pld", "moments": "rdp", "ma": "rdp", "clt": "gdp"}
_NOT_PRIVATE = "a step had no noise, or noise that can be made again (debug mode): nothing is guaranteed"
_UNAMPLIFIED = "zCDP takes every step as if it saw every sample: sampling makes the truth smaller, often by far"
_APPROXIMATE = "an approximation for many sampled steps, no upper bound: the truth may be larger"
_EXACT = "no step was sampled: computed by the exact formula of the Gaussian"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarantee(Options):
    """What holds for a training.

    Attributes:
        epsilon: 0 or more; inf: nothing is guaranteed.
        delta: from 0 to 1.
        asked: which of the two was computed from the other.
        accountant: what computed it; not always what was asked for, then `notes` say why.
        relation: what neighbouring data are: "add_or_remove_one" sample, "replace_one", or "zero_out_one", where one
            sample contributes nothing.
        upper_bound: whether the truth is at most this.
        notes: what a reader must know, in sentences.
    """

    epsilon: float
    delta: float
    asked: Literal["epsilon", "delta"]
    accountant: Accountant
    relation: Relation
    upper_bound: bool = True
    notes: tuple[str, ...] = ()

    @property
    def value(self) -> float:
        """The number that was asked for."""
        return self.epsilon if self.asked == "epsilon" else self.delta

    def __float__(self) -> float:
        return self.value


def epsilon(
    spent: Spent | None = None,
    *,
    delta: float,
    accountant: Accountant = "pld",
    noise_multiplier: float | None = None,
    sample_rate: float | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    dataset_size: int | None = None,
    sampling: Sampling = "poisson",
    mechanism: Mechanism = "gaussian",
) -> Guarantee:
    """Epsilon of what was charged, or of equal steps that the keywords describe.

    Args:
        spent: what a ledger charged; without it `noise_multiplier`, `steps` and a rate.
        delta: above 0, below 1; less than one over the number of samples, or it promises nothing.
        accountant: "pld", the tightest, which falls back to "rdp" with a note where it does not reach; "rdp"; "zcdp";
            "gdp".
        noise_multiplier: standard deviation of the noise (Laplace: its scale) over the clip norm; 0: no noise.
        sample_rate: probability that a sample is in a batch; or give `batch_size` and `dataset_size`.
        steps: how many, 0 or more.
        batch_size: samples in a batch: expected ("poisson"), exact ("fixed_size", "shuffle") or at most
            ("truncated_poisson", which needs `sample_rate` too).
        dataset_size: samples in all.
        sampling: as `Charge.sampling`.
        mechanism: as `Charge.mechanism`.

    Raises:
        ConfigError: E144, for values out of range, for steps that this accountant cannot account for, for both or
            neither of charges and keywords, and for samplers that cannot be put together.
        MissingExtra: E112, without dp-accounting.
    """
    check_delta(delta)
    check_accountant(accountant)
    given = _given(spent, noise_multiplier, sample_rate, steps, batch_size, dataset_size, sampling, mechanism)
    return _answer(events(given), "epsilon", delta, accountant)


def delta(
    spent: Spent | None = None,
    *,
    epsilon: float,
    accountant: Accountant = "pld",
    noise_multiplier: float | None = None,
    sample_rate: float | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    dataset_size: int | None = None,
    sampling: Sampling = "poisson",
    mechanism: Mechanism = "gaussian",
) -> Guarantee:
    """Delta at an epsilon of 0 or more: the inverse of `epsilon`, with the same arguments and errors."""
    check_epsilon(epsilon)
    check_accountant(accountant)
    given = _given(spent, noise_multiplier, sample_rate, steps, batch_size, dataset_size, sampling, mechanism)
    return _answer(events(given), "delta", epsilon, accountant)


def charge_of(
    *,
    noise_multiplier: float,
    sample_rate: float | None = None,
    batch_size: int | None = None,
    dataset_size: int | None = None,
    sampling: Sampling = "poisson",
    mechanism: Mechanism = "gaussian",
) -> Charge:
    """The charge of a step that numbers describe, for planning; a trainer makes its own.

    Raises:
        ConfigError: E144, for values out of range and for a rate that is missing or given twice.
    """
    sized = sampling in ("truncated_poisson", "fixed_size")
    rate = sample_rate
    if sampling == "full":
        rate = 1.0
    elif sampling != "truncated_poisson" and batch_size is not None and dataset_size is not None:
        fitting = 0 < batch_size <= dataset_size and sample_rate in (None, batch_size / dataset_size)
        _require(fitting, "batch_size", batch_size, "from 1 to dataset_size, with no other sample_rate")
        rate = batch_size / dataset_size
    require(
        rate is not None,
        seen="steps without a sample_rate",
        expected="the probability that a sample is in a batch",
        fix="give batch_size and dataset_size, or sample_rate itself (--batch-size, --dataset-size, --sample-rate)",
        code="E144",
    )
    return Charge(
        mechanism=mechanism if noise_multiplier else "none",
        noise_multiplier=noise_multiplier,
        sampling=sampling,
        sample_rate=rate or 0.0,
        dataset_size=(dataset_size or 0) if sized else 0,
        batch_size=(batch_size or 0) if sized else 0,
    )


def check_delta(delta: float) -> None:
    """Raise E144 unless delta is above 0 and below 1."""
    _require(0 < delta < 1, "delta", delta, "above 0, below 1")


def check_epsilon(epsilon: float) -> None:
    """Raise E144 unless epsilon is a finite number, 0 or more."""
    _require(0 <= epsilon < math.inf, "epsilon", epsilon, "a finite number, 0 or more")


def check_steps(steps: int) -> None:
    """Raise E144 unless steps is a whole number, 0 or more."""
    whole = isinstance(steps, int) and not isinstance(steps, bool)  # pyright: ignore[reportUnnecessaryIsInstance]
    _require(whole and steps >= 0, "steps", steps, "a whole number, 0 or more")


def check_accountant(accountant: str) -> None:
    """Raise E144 unless there is such an accountant."""
    known: tuple[str, ...] = get_args(Accountant)
    ours = _ELSEWHERE.get(accountant.lower(), "pld")
    require(
        accountant in known,
        seen=f"accountant {accountant!r}",
        expected=f"one of {', '.join(known)}",
        fix=f'accountant="{ours}"',
        code="E144",
    )


def _given(
    spent: Spent | None,
    noise_multiplier: float | None,
    sample_rate: float | None,
    steps: int | None,
    batch_size: int | None,
    dataset_size: int | None,
    sampling: Sampling,
    mechanism: Mechanism,
) -> Spent:
    numbers = (noise_multiplier, sample_rate, steps, batch_size, dataset_size)
    if spent is not None and all(number is None for number in numbers):
        return spent
    if spent is not None or noise_multiplier is None or steps is None:
        raise ConfigError(
            "E144",
            seen="charges and keywords" if spent is not None else "no charges, and no noise_multiplier or no steps",
            expected="either what a ledger charged, or noise_multiplier, sample_rate and steps",
            fix="epsilon(spent, delta=...) or epsilon(noise_multiplier=..., sample_rate=..., steps=..., delta=...)",
        )
    check_steps(steps)
    charge = charge_of(
        noise_multiplier=noise_multiplier,
        sample_rate=sample_rate,
        batch_size=batch_size,
        dataset_size=dataset_size,
        sampling=sampling,
        mechanism=mechanism,
    )
    return Spent([(charge, steps)])


def _answer(found: Events, asked: Literal["epsilon", "delta"], at: float, accountant: Accountant) -> Guarantee:
    notes: list[str] = []
    sampled = any(event.sampling != "full" for event, _ in found.runs)
    forward = asked == "epsilon"
    if not found.private:
        value, notes = (math.inf if forward else 1.0), [_NOT_PRIVATE]
    elif not found.runs:
        value = 0.0
    elif accountant == "pld":
        value, accountant, notes = _by_loss(found, at, forward)
    elif accountant == "rdp":
        value = (rdp_epsilon if forward else rdp_delta)(rdp_curve(found.runs, found.relation), at)
    elif accountant == "zcdp":
        value = (zcdp_epsilon if forward else zcdp_delta)(zcdp_rho(found.runs), at)
        notes = [_UNAMPLIFIED] if sampled else []
    else:
        value = (gdp_epsilon if forward else gdp_delta)(gdp_mu(found.runs), at)
        notes = [_APPROXIMATE if sampled else _EXACT]
    return Guarantee(
        epsilon=value if forward else at,
        delta=at if forward else value,
        asked=asked,
        accountant=accountant,
        relation=found.relation,
        upper_bound=accountant != "gdp" or not sampled or not found.private,
        notes=tuple(notes),
    )


def _by_loss(found: Events, at: float, forward: bool) -> tuple[float, Accountant, list[str]]:
    """By privacy loss distributions, or by Renyi where those do not reach or reach less far: both are upper bounds."""
    notes: list[str] = []
    try:
        value = (pld_epsilon if forward else pld_delta)(found, at)
    except LossLimit as limit:
        value, notes = math.inf, [f"rdp instead of pld: {limit}"]
    if any(event.sampling == "truncated_poisson" for event, _ in found.runs):
        if notes:
            raise ConfigError(
                "E144",
                seen=f"truncated Poisson batches where pld does not reach ({notes[0]})",
                expected="steps that an accountant can account for",
                fix='a larger delta, or sampling="poisson"',
            )
        return value, "pld", notes
    other = (rdp_epsilon if forward else rdp_delta)(rdp_curve(found.runs, found.relation), at)
    if notes or other < value:
        return other, "rdp", notes or ["rdp instead of pld: its bound is the smaller one here"]
    exact = all(event.sampling == "full" and event.kind == "gaussian" for event, _ in found.runs)
    return value, "pld", [_EXACT] if exact else []


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    require(holds, seen=f"{name} {value!r}", expected=f"{name}: {expected}", fix=f"correct {name}", code="E144")

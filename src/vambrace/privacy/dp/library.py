"""The one place that knows dp-accounting (Apache-2.0, google/differential-privacy): everything here calls it.

It is the extra "dp": `pip install 'vambrace[dp]'`. Imports no torch.
"""

from __future__ import annotations

import contextlib
import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.core.extras import require
from vambrace.errors import ConfigError
from vambrace.privacy.dp.events import Event, events

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from vambrace.privacy.dp.charges import Spent
    from vambrace.privacy.dp.events import Relation

    Vector = NDArray[np.float64]

__all__ = [
    "both",
    "dp_event",
    "gaussian_delta",
    "gaussian_epsilon",
    "loss_delta",
    "loss_distribution",
    "loss_epsilon",
    "no_loss",
    "orders",
    "renyi",
    "renyi_delta",
    "renyi_epsilon",
    "repeated",
    "unsupported",
]


def orders() -> Vector:
    """The Renyi orders that dp-accounting uses by default: 1.1 to 10.9, 11 to 63, 128, 256, 512, 1024."""
    return np.asarray(_library().rdp.RdpAccountant().orders, dtype=np.float64)


def renyi(event: Event, relation: Relation, at: Vector) -> Vector:
    """Renyi divergence of one Gaussian, Laplace or sampled Gaussian event, at every order; inf where it is unknown."""
    library = _library()
    accountant = library.rdp.RdpAccountant(at, _neighbours(relation))
    with _quiet():
        accountant.compose(_dp_event(event))
    return np.asarray(accountant.rdp, dtype=np.float64)


def renyi_epsilon(at: Vector, divergence: Vector, delta: float) -> float:
    """Epsilon of a Renyi curve, by the tight conversion (Canonne, Kamath, Steinke 2020, proposition 12)."""
    with _quiet():
        return float(_library().rdp.compute_epsilon(at, divergence, delta)[0])


def renyi_delta(at: Vector, divergence: Vector, epsilon: float) -> float:
    """Delta of a Renyi curve, by the same conversion."""
    with _quiet():
        return float(_library().rdp.rdp_privacy_accountant.compute_delta(at, divergence, epsilon)[0])


def gaussian_epsilon(noise: float, delta: float) -> float:
    """Epsilon of one Gaussian of this noise, exact (Balle and Wang 2018, theorem 8)."""
    with _quiet():
        return float(_library().get_epsilon_gaussian(noise, delta))


def gaussian_delta(noise: float, epsilon: float) -> float:
    """Delta of one Gaussian of this noise, exact (Balle and Wang 2018, theorem 8)."""
    from scipy.special import log_ndtr

    if not math.isfinite(noise):
        return 0.0
    above, below = 1 / (2 * noise) - epsilon * noise, -1 / (2 * noise) - epsilon * noise
    first, second = float(log_ndtr(above)), epsilon + float(log_ndtr(below))
    return 0.0 if second >= first else -math.expm1(second - first) * math.exp(first)


def loss_distribution(event: Event, relation: Relation, cell: float) -> Any:  # noqa: ANN401  the library's own type
    """The privacy loss distribution of one event on a grid of this cell, rounded up (never less than the truth)."""
    library = _library()
    build = library.pld.privacy_loss_distribution
    grid = {"value_discretization_interval": cell}
    with _quiet():
        if event.sampling == "truncated_poisson":
            return build.from_truncated_subsampled_gaussian_mechanism(
                dataset_size=event.dataset_size,
                sampling_probability=event.rate,
                truncated_batch_size=event.batch_size,
                noise_multiplier=event.noise,
                neighboring_relation=_neighbours(relation),
                **grid,
            )
        if event.kind == "laplace":
            return build.from_laplace_mechanism(event.noise, sampling_prob=event.rate, **grid)
        return build.from_gaussian_mechanism(event.noise, sampling_prob=event.rate, **grid)


def no_loss(cell: float) -> Any:  # noqa: ANN401
    """The privacy loss distribution of nothing released."""
    return _library().pld.privacy_loss_distribution.identity(value_discretization_interval=cell)


def repeated(loss: Any, count: int) -> Any:  # noqa: ANN401
    """The loss distribution of `count` such events."""
    with _quiet():
        return loss.self_compose(count)


def both(one: Any, other: Any) -> Any:  # noqa: ANN401
    """The loss distribution of two groups of events on one grid."""
    with _quiet():
        return one.compose(other)


def loss_epsilon(loss: Any, delta: float) -> float:  # noqa: ANN401
    """Epsilon of a loss distribution."""
    with _quiet():
        return float(loss.get_epsilon_for_delta(delta))


def loss_delta(loss: Any, epsilon: float) -> float:  # noqa: ANN401
    """Delta of a loss distribution."""
    with _quiet():
        return float(loss.get_delta_for_epsilon(epsilon))


def dp_event(spent: Spent) -> Any:  # noqa: ANN401
    """Charges as one event of dp-accounting, for its accountants; noise counts as in `vambrace.privacy.dp.events`.

    Raises:
        ConfigError: E144, as `events` does.
        MissingExtra: E112, without dp-accounting.
    """
    library, found = _library(), events(spent)
    if not found.private:
        return library.NonPrivateDpEvent()
    runs = [library.SelfComposedDpEvent(_dp_event(event), count) for event, count in found.runs]
    return library.ComposedDpEvent(runs)


def _dp_event(event: Event) -> Any:  # noqa: ANN401
    library = _library()
    if event.sampling == "truncated_poisson":
        if event.kind != "gaussian":
            raise unsupported(event, "dp-accounting")
        return library.TruncatedSubsampledGaussianDpEvent(event.dataset_size, event.rate, event.batch_size, event.noise)
    # A discrete Gaussian is no more than this at any Renyi order where it is full, at whole ones where it is sampled.
    plain = library.LaplaceDpEvent(event.noise) if event.kind == "laplace" else library.GaussianDpEvent(event.noise)
    if event.sampling == "poisson":
        return library.PoissonSampledDpEvent(event.rate, plain)
    if event.sampling == "fixed_size":
        return library.SampledWithoutReplacementDpEvent(event.dataset_size, event.batch_size, plain)
    return plain


def unsupported(event: Event, accountant: str) -> ConfigError:
    """E144: an accountant that has no bound for such a step."""
    return ConfigError(
        "E144",
        seen=f"{event.kind.replace('_', ' ')} noise on a {event.sampling.replace('_', ' ')} batch, for {accountant}",
        expected="a step that this accountant can account for",
        fix='accountant="pld", or sampling="poisson"',
    )


def _neighbours(relation: Relation) -> Any:  # noqa: ANN401
    kinds = _library().NeighboringRelation
    return {
        "add_or_remove_one": kinds.ADD_OR_REMOVE_ONE,
        "replace_one": kinds.REPLACE_ONE,
        "zero_out_one": kinds.REPLACE_SPECIAL,
    }[relation]


def _library() -> Any:  # noqa: ANN401
    return require("dp_accounting", extra="dp")


class _Unheard(logging.Filter):
    """Drops what dp-accounting says about orders that it leaves out: what is left is still a bound."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "rdp_privacy_accountant" not in record.pathname


_UNHEARD = _Unheard()


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Without the library's log lines and NumPy's warnings: it handles its zeros and infinities after they arise."""
    log = logging.getLogger("absl")
    log.addFilter(_UNHEARD)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        log.removeFilter(_UNHEARD)

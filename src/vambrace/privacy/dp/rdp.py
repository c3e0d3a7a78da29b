"""Renyi differential privacy: one curve over orders for every event; curves add up.

Sampled Gaussians come from dp-accounting. What it has no curve for is bounded here at whole orders by binomial sums
over moments m_j = log E_Q[(P/Q)^j] of the plain mechanism, P and Q its outputs on neighbours:

- Poisson: log sum_j C(a, j) (1-q)^(a-j) q^j e^(m_j) (Mironov, Talwar, Zhang 2019, "Renyi differential privacy of the
  sampled Gaussian mechanism", section 3; their condition, a reflection that exchanges P and Q, holds for any symmetric
  noise).
- Without replacement: Wang, Balle, Kasiviswanathan 2019, "Subsampled Renyi differential privacy and analytical moments
  accountant", theorem 9 with an infinite epsilon at order infinity.

The moments of the discrete Gaussian are at most those of the Gaussian (Canonne, Kamath, Steinke 2020, "The discrete
Gaussian for differential privacy"); Laplace: Mironov 2017, "Renyi differential privacy", proposition 6, with the l1
norm in one coordinate, its worst case. Imports no torch.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from scipy.special import gammaln, logsumexp  # pyright: ignore[reportUnknownVariableType]

from vambrace.privacy.dp import library

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from vambrace.privacy.dp.events import Event, Relation

    Vector = NDArray[np.float64]

__all__ = ["curve", "rdp_curve", "rdp_delta", "rdp_epsilon"]

# What rounding may take from a sum of terms whose total is near 1: without it a curve of 0 or less would pass for
# perfect privacy, however many steps there are.
_ROUNDING = 1e-14


@lru_cache(maxsize=4096)
def curve(event: Event, relation: Relation) -> Vector:
    """Renyi divergence of one event at every order of dp-accounting; inf where there is no bound.

    Raises:
        ConfigError: E144, for a truncated Poisson sampler.
    """
    at = _orders()
    if event.sampling == "truncated_poisson":
        raise library.unsupported(event, "rdp")
    if event.sampling == "full" or event.kind == "gaussian":
        found = library.renyi(event, relation, at)
    else:
        found = np.array([_whole(event, int(order)) if order == int(order) else np.inf for order in at])
    found = np.maximum(np.nan_to_num(found, nan=np.inf, posinf=np.inf), _ROUNDING)
    found.setflags(write=False)
    return found


def rdp_curve(runs: Iterable[tuple[Event, int]], relation: Relation) -> Vector:
    """Renyi divergence of all events together, at every order."""
    return sum((count * curve(event, relation) for event, count in runs), np.zeros(len(_orders())))


def rdp_epsilon(divergence: Vector, delta: float) -> float:
    """Epsilon at delta; inf where no order gives one."""
    return library.renyi_epsilon(_orders(), divergence, delta) if divergence.any() else 0.0


def rdp_delta(divergence: Vector, epsilon: float) -> float:
    """Delta at epsilon; 1 where no order gives less."""
    return library.renyi_delta(_orders(), divergence, epsilon) if divergence.any() else 0.0


@cache
def _orders() -> Vector:
    return library.orders()


def _whole(event: Event, order: int) -> float:
    """The bound at a whole order."""
    chosen = np.arange(order + 1, dtype=np.float64)
    terms = (
        gammaln(order + 1)
        - gammaln(chosen + 1)
        - gammaln(order - chosen + 1)
        + chosen * np.log(event.rate)
        + _moments(event, chosen)
    )
    if event.sampling == "poisson":
        terms += (order - chosen) * np.log1p(-event.rate)
    else:
        terms[1] = -np.inf
        second = float(_moments(event, np.array([2.0]))[0])
        terms[2] += min(np.log(4) + np.log(-np.expm1(-second)), np.log(2))
        terms[3:] += np.log(2)
    return float(cast("Any", logsumexp)(terms)) / (order - 1)


def _moments(event: Event, at: Vector) -> Vector:
    """Log E_Q[(P/Q)^j] of the mechanism without sampling, for j of 0, 1, 2, ..."""
    if event.kind != "laplace":
        return at * (at - 1) / (2 * event.noise**2)
    log = np.log(np.maximum(at - 1, np.finfo(np.float64).tiny))  # at j = 1 the second term is nothing
    toward = np.log(np.maximum(at, 1)) + (at - 1) / event.noise
    back = log - at / event.noise
    found = np.logaddexp(toward, back) - np.log(np.maximum(2 * at - 1, 1))
    return np.where(at < 2, 0.0, found)

"""Gaussian differential privacy: one number, mu; sampled steps by the central limit theorem, which is no upper bound.

Unsampled Gaussians compose exactly: mu = sqrt(steps) / z. Sampled ones only approach a Gaussian as steps grow: Poisson
by "Deep learning with Gaussian differential privacy" (2020, arXiv 1911.11607); without replacement by Dong, Roth, Su
2022, "Gaussian differential privacy", section 5. Imports no torch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from scipy.special import ndtr

from vambrace.privacy.dp import library

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vambrace.privacy.dp.events import Event

__all__ = ["gdp_delta", "gdp_epsilon", "gdp_mu"]

_LARGEST = 700.0  # exponent of a float


def gdp_mu(runs: Iterable[tuple[Event, int]]) -> float:
    """The mu of all events.

    Raises:
        ConfigError: E144, for noise that is not Gaussian and for truncated batches.
    """
    return math.sqrt(math.fsum(count * _squared(event) for event, count in runs))


def gdp_epsilon(mu: float, delta: float) -> float:
    """Epsilon at delta of the Gaussian that mu names."""
    return library.gaussian_epsilon(1 / mu, delta) if 0 < mu < math.inf else 0.0 if mu == 0 else math.inf


def gdp_delta(mu: float, epsilon: float) -> float:
    """Delta at epsilon of the Gaussian that mu names."""
    return library.gaussian_delta(1 / mu, epsilon) if 0 < mu < math.inf else 0.0 if mu == 0 else 1.0


def _squared(event: Event) -> float:
    if event.kind != "gaussian" or event.sampling == "truncated_poisson":
        raise library.unsupported(event, "gdp")
    single = 1 / event.noise
    if event.sampling == "full":
        return single**2
    if single**2 > _LARGEST:
        return math.inf
    if event.sampling == "poisson":
        return event.rate**2 * math.expm1(single**2)
    spread = math.exp(single**2) * float(ndtr(1.5 * single)) + 3 * float(ndtr(-0.5 * single)) - 2
    return 2 * event.rate**2 * spread

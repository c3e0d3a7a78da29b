"""Zero-concentrated differential privacy: one number, rho, that adds up; it knows nothing of sampling.

A Gaussian of noise z has rho = 1 / (2 z^2) (Bun and Steinke 2016, "Concentrated differential privacy", proposition
1.6), the discrete Gaussian the same (Canonne, Kamath, Steinke 2020), a Laplace of scale b, which is
1/b-private, 1 / (2 b^2) (Bun and Steinke, proposition 1.4). It is rho * a at every Renyi order a, and converts as
such. Imports no torch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

from scipy.optimize import minimize_scalar  # pyright: ignore[reportUnknownVariableType]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vambrace.privacy.dp.events import Event

__all__ = ["zcdp_delta", "zcdp_epsilon", "zcdp_rho"]

_NEAREST, _FARTHEST = 1e-6, 1e9  # of an order from 1


def zcdp_rho(runs: Iterable[tuple[Event, int]]) -> float:
    """The rho of all events, every one of them as if it saw every sample."""
    return math.fsum(count * _rho(event) for event, count in runs)


def zcdp_epsilon(rho: float, delta: float) -> float:
    """Epsilon at delta, at the best order (Canonne, Kamath, Steinke 2020, proposition 12); every order is a bound."""
    if rho == 0:
        return 0.0

    def bound(order: float) -> float:
        return order * rho + math.log1p(-1 / order) - math.log(delta * order) / (order - 1)

    return max(0.0, _least(bound))


def zcdp_delta(rho: float, epsilon: float) -> float:
    """Delta at epsilon, by the same conversion."""
    if rho == 0:
        return 0.0

    def bound(order: float) -> float:
        return (order - 1) * (order * rho - epsilon + math.log1p(-1 / order)) - math.log(order)

    return math.exp(min(0.0, _least(bound)))


def _rho(event: Event) -> float:
    # A truncated batch has a sample less for every one too many: adding one can also push another one out.
    noise = event.noise / 2 if event.sampling == "truncated_poisson" else event.noise
    return 1 / (2 * noise**2)


def _least(bound: Callable[[float], float]) -> float:
    def at(log: float) -> float:
        return bound(1 + math.exp(log))

    found = cast("Any", minimize_scalar)(
        at,
        bounds=(math.log(_NEAREST), math.log(_FARTHEST)),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return float(found.fun)

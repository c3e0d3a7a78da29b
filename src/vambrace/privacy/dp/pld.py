"""Privacy loss distributions: the tightest bound here, computed on a grid, with what the computer may round away added.

dp-accounting builds the distributions, rounded up, and composes them by fast Fourier transforms. Three things are
decided here, because its defaults fail in silence at the ends of the scale:

- The grid. A step whose loss spreads over few cells is overstated (by 4 times at noise 1000, rate 0.01, 10,000 steps),
  and a grid finer than the answer needs takes gigabytes. The cell is about a tenth of the smallest spread, at most
  1/1024, and never so fine that the result takes more than 2^20 cells.
- Rounding. A transform raised to the power of the steps is wrong by about that many units in the last place, which at
  10,000 steps makes epsilon too small from a delta of 1e-10 down. Delta is asked for less that much.
- Steps on every sample are no matter of grids: their Gaussians are one Gaussian, which has an exact formula.

Imports no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

from vambrace.privacy.dp import library
from vambrace.privacy.dp.events import Event
from vambrace.privacy.dp.rdp import rdp_curve, rdp_epsilon

if TYPE_CHECKING:
    from vambrace.privacy.dp.events import Events, Relation

__all__ = ["LossLimit", "pld_delta", "pld_epsilon"]

_COARSEST = 2.0**-10
_CELLS_A_SPREAD = 10
_MOST_CELLS = 2**20
_SMALLEST = 1e-15  # delta below which no loss matters: what the library cuts from the tails
_ULP = 2.0**-52

Runs = tuple[tuple[Event, int], ...]


class LossLimit(Exception):
    """These events are beyond what a grid can hold; the message says what."""


def pld_epsilon(found: Events, delta: float) -> float:
    """Epsilon at delta.

    Raises:
        LossLimit: where the grid, its rounding or the memory does not allow it, and for noise without such a
            distribution.
    """
    exact, runs = _parted(found)
    if not runs:
        return library.gaussian_epsilon(exact, delta)
    left = delta - _lost(runs)
    if left < 0.9 * delta:
        raise LossLimit(f"a delta of {delta:g} is within the rounding of {_steps(runs):,} steps on a grid")
    return library.loss_epsilon(_composed(found.relation, exact, runs), left)


def pld_delta(found: Events, epsilon: float) -> float:
    """Delta at epsilon.

    Raises:
        LossLimit: as `pld_epsilon` does, but for rounding: that is added.
    """
    exact, runs = _parted(found)
    if not runs:
        return library.gaussian_delta(exact, epsilon)
    return min(1.0, library.loss_delta(_composed(found.relation, exact, runs), epsilon) + _lost(runs))


def _parted(found: Events) -> tuple[float, Runs]:
    """The noise of all full Gaussians as one (inf: there is none), and what is left."""
    if any(event.kind == "discrete_gaussian" for event, _ in found.runs):
        raise LossLimit("noise of whole numbers has no loss distribution here")
    if any(event.sampling == "fixed_size" for event, _ in found.runs):
        raise LossLimit("batches of a fixed size have no loss distribution here")
    full = {event: count for event, count in found.runs if event.sampling == "full" and event.kind == "gaussian"}
    precision = math.fsum(count / event.noise**2 for event, count in full.items())
    exact = 1 / math.sqrt(precision) if precision else math.inf
    return exact, tuple((event, count) for event, count in found.runs if event not in full)


def _steps(runs: Runs) -> int:
    return sum(count for _, count in runs)


def _lost(runs: Runs) -> float:
    return _ULP * _steps(runs)


def _composed(relation: Relation, exact: float, runs: Runs) -> Any:  # noqa: ANN401  the library's own type
    cell = _cell(relation, exact, runs)
    try:
        with _LOCK:
            whole = _LAST.composed(relation, cell, runs)
        if exact < math.inf:
            whole = library.both(whole, library.loss_distribution(Event("gaussian", exact), relation, cell))
    except (ArithmeticError, ValueError, IndexError, MemoryError) as error:
        raise LossLimit(f"the grid failed: {error}") from error
    return whole


def _cell(relation: Relation, exact: float, runs: Runs) -> float:
    """The width of the grid's cells, a power of two."""
    spread = min(_spread(event) for event, _ in runs)
    # The loss of a truncated batch is at most about that of a Poisson batch whose neighbours replace a sample.
    seen = [
        (Event(event.kind, event.noise / 2, "poisson", event.rate), count)
        if event.sampling == "truncated_poisson"
        else (event, count)
        for event, count in runs
    ]
    if exact < math.inf:
        seen.append((Event("gaussian", exact), 1))
    # Losses lie on both sides of nothing.
    reach = 2 * rdp_epsilon(rdp_curve(seen, relation), _SMALLEST)
    cell = 2.0 ** math.ceil(math.log2(max(min(_COARSEST, spread / _CELLS_A_SPREAD) / 2, reach / _MOST_CELLS)))
    if cell > spread:
        raise LossLimit(f"a step's loss, about {spread:.2g}, is too small for a grid on which all of them fit")
    return cell


def _spread(event: Event) -> float:
    """About the standard deviation of one step's loss: from the chi-square divergence of the plain mechanism."""
    second = _log_second_moment(event)
    return event.rate * math.sqrt(math.expm1(min(second, 50.0)))


def _log_second_moment(event: Event) -> float:
    single = 1 / event.noise
    if event.kind == "laplace":
        return single + math.log((2 + math.exp(-3 * single)) / 3)
    return single**2


@dataclass(slots=True)
class _Last:
    """All but the last run of the composition asked for last: a search for a number of steps changes the last count."""

    key: tuple[Relation, float] | None = None
    before: Runs = ()
    whole: Any = None
    event: Event | None = None
    single: Any = None

    def composed(self, relation: Relation, cell: float, runs: Runs) -> Any:  # noqa: ANN401
        if self.key != (relation, cell) or runs[: len(self.before)] != self.before or len(runs) == len(self.before):
            self.key, self.before, self.whole, self.event = (relation, cell), (), library.no_loss(cell), None
        while len(self.before) < len(runs) - 1:
            at = len(self.before)
            self.whole = library.both(self.whole, self._many(*runs[at]))
            self.before = runs[: at + 1]
        return library.both(self.whole, self._many(*runs[-1]))

    def _many(self, event: Event, count: int) -> Any:  # noqa: ANN401
        relation, cell = cast("tuple[Relation, float]", self.key)
        if event != self.event:
            self.single, self.event = library.loss_distribution(event, relation, cell), event
        return library.repeated(self.single, count)


_LAST = _Last()
_LOCK = Lock()

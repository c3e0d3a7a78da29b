"""Monitors: how many steps a budget allows, known before the first of them runs.

    >>> from vambrace.privacy.dp.charges import Charge
    >>> step = Charge(mechanism="gaussian", noise_multiplier=1.1, sampling="poisson", sample_rate=256 / 60000)
    >>> monitor = Monitor(step, max_epsilon=3.0, delta=1e-5, accountant="rdp")
    >>> monitor.last_step, monitor.allows(18338), monitor.allows(18339)
    (18338, True, False)

A trainer asks `allows(steps)` before each step and stops when the answer is no: the budget is never broken, not even by
the step that would show it. The limit is found once; to ask is free. Imports no torch.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from vambrace.core.options import require
from vambrace.errors import ConfigError
from vambrace.privacy.dp import accounting
from vambrace.privacy.dp.accounting import charge_of, check_accountant, check_delta, check_epsilon
from vambrace.privacy.dp.charges import Charge, Spent
from vambrace.privacy.dp.edges import last_that_fits

if TYPE_CHECKING:
    from vambrace.privacy.dp.accounting import Accountant, Guarantee
    from vambrace.privacy.dp.charges import Mechanism, Sampling

__all__ = ["Monitor", "max_epochs"]

_FIRST_LOOK = 1024  # steps of a schedule that are read at once, doubled each time


@dataclass(frozen=True)
class Monitor:
    """A budget, and the schedule of steps that draws on it.

    Attributes:
        schedule: the charge of every step, or a function from the number of a step, 0 the first, to its charge. A
            function is asked about each step once; few different charges keep it fast (docs/privacy/dp-accounting.md).
        max_epsilon: what the steps may cost at most, above 0.
        delta: at which delta, above 0, below 1.
        accountant: "rdp", "pld", "zcdp" or "gdp"; "pld" allows more steps and takes seconds to say how many.
        spent: what was charged before step 0, on the same data.
        horizon: steps beyond this are not allowed, whatever they cost; give it the steps that are planned. A schedule
            is read up to about twice the last step that is allowed, and noise that grows may cost less for ever.
    """

    schedule: Charge | Callable[[int], Charge]
    max_epsilon: float
    delta: float
    accountant: Accountant = "rdp"
    spent: Spent = field(default_factory=Spent)
    horizon: int = 1_000_000

    def __post_init__(self) -> None:
        check_epsilon(self.max_epsilon)
        check_delta(self.delta)
        check_accountant(self.accountant)
        _require_above_zero("max_epsilon", self.max_epsilon)
        _require_above_zero("horizon", self.horizon)

    def allows(self, steps: int) -> bool:
        """Whether this many steps in all stay within the budget."""
        return steps <= self.last_step

    def guarantee_after(self, steps: int) -> Guarantee:
        """What holds after this many steps of the schedule, on top of what was spent before."""
        return self._cost(steps, self.accountant)

    @cached_property
    def last_step(self) -> int:
        """The largest number of steps for which the cost stays at or below `max_epsilon`; 0: not even one."""
        if self.accountant != "pld":
            return self._search(0, self.accountant, self._plan.next_look)
        # What fits by rdp fits by pld, and is found in a fraction of the time. Run after run from there, because the
        # loss distribution of all runs but the last is kept.
        return self._search(self._search(0, "rdp", self._plan.next_look), "pld", self._plan.end_of_run)

    def max_epochs(self, steps_per_epoch: int) -> int:
        """The largest number of whole epochs that stay within the budget; 0: not even the first."""
        _require_above_zero("steps_per_epoch", steps_per_epoch)
        return self.last_step // steps_per_epoch

    @cached_property
    def _plan(self) -> _Plan:
        return _Plan(self.schedule, self.horizon)

    def _search(self, known: int, by: Accountant, end_of: Callable[[int], int]) -> int:
        while known < self.horizon:
            end = end_of(known)
            found = last_that_fits(lambda steps: self._fits(steps, by), known=known, limit=end)
            if found < end:
                return found
            known = end
        return known

    def _fits(self, steps: int, by: Accountant) -> bool:
        try:
            return self._cost(steps, by).epsilon <= self.max_epsilon
        except ConfigError:
            if by == self.accountant:
                raise
            return False  # a step that only the slower accountant knows

    def _cost(self, steps: int, by: Accountant) -> Guarantee:
        return accounting.epsilon(self.spent + self._plan.first(steps), delta=self.delta, accountant=by)


def max_epochs(
    *,
    max_epsilon: float,
    delta: float,
    noise_multiplier: float,
    batch_size: int,
    dataset_size: int,
    accountant: Accountant = "rdp",
    sampling: Sampling = "poisson",
    mechanism: Mechanism = "gaussian",
) -> int:
    """The largest number of whole epochs of equal steps that stay within the budget; 0: not even the first.

    An epoch is dataset_size / batch_size steps, rounded up. Arguments and errors: those of `Monitor` and `charge_of`.
    """
    step = charge_of(
        noise_multiplier=noise_multiplier,
        batch_size=batch_size,
        dataset_size=dataset_size,
        sampling=sampling,
        mechanism=mechanism,
    )
    monitor = Monitor(step, max_epsilon=max_epsilon, delta=delta, accountant=accountant)
    return monitor.max_epochs(-(-dataset_size // batch_size))


@dataclass
class _Plan:
    """A schedule as runs of equal charges, read no further than anybody looked."""

    schedule: Charge | Callable[[int], Charge]
    horizon: int
    charges: list[Charge] = field(default_factory=list[Charge])
    ends: list[int] = field(default_factory=list[int])

    def next_look(self, done: int) -> int:
        """How far to look from `done` steps on."""
        return self.horizon if isinstance(self.schedule, Charge) else min(self.horizon, max(_FIRST_LOOK, 2 * done))

    def end_of_run(self, done: int) -> int:
        """Where the run that step `done` belongs to ends, as far as it was read."""
        end = self.next_look(done)
        self._read(end)
        return min(end, self.ends[bisect_right(self.ends, done)])

    def first(self, steps: int) -> Spent:
        """The charges of the first steps."""
        if not steps:
            return Spent()
        self._read(steps)
        last = bisect_left(self.ends, steps)
        starts = [0, *self.ends[:last]]
        runs = [(self.charges[at], self.ends[at] - starts[at]) for at in range(last)]
        return Spent([*runs, (self.charges[last], steps - starts[last])])

    def _read(self, steps: int) -> None:
        read = self.ends[-1] if self.ends else 0
        if isinstance(self.schedule, Charge):
            self.charges, self.ends = [self.schedule], [max(steps, read)]
            return
        for step in range(read, steps):
            charge = self.schedule(step)
            if self.charges and self.charges[-1] == charge:
                self.ends[-1] = step + 1
            else:
                self.charges.append(charge)
                self.ends.append(step + 1)


def _require_above_zero(name: str, value: float) -> None:
    require(value > 0, seen=f"{name} {value!r}", expected=f"{name}: above 0", fix=f"correct {name}", code="E144")

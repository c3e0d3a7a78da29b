"""What all attacks share that look for the nearest adversarial point: how they are called, and the curve of one run."""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from vambrace.attacks.curve import SPENT, Curve, radii
from vambrace.attacks.fixed import require_option
from vambrace.attacks.kinds import require_kinds
from vambrace.attacks.transfer import transferred
from vambrace.core.access import Access, require_access
from vambrace.core.findings import Cost
from vambrace.core.options import Norm, Options, Ratio
from vambrace.core.progress import silent
from vambrace.models.expectation import calls_a_row
from vambrace.search.problem import pose, require_radius

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from vambrace.core.goals import Goal
    from vambrace.core.progress import Progress
    from vambrace.core.rng import Streams
    from vambrace.models.contract import Model
    from vambrace.search.outcome import Attacked
    from vambrace.search.problem import Problem

__all__ = ["Nearest", "censored"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearest(Options):
    """An attack that makes the change small. Derive with the options of one attack and its `run`.

    Attributes:
        norm: what is made small.
        eps: a success within this radius is near enough and ends the search of its sample, and no other one counts;
            None: the nearest one is wanted, however far it is.
        quantised: whether a success must survive being saved as an 8-bit image, and is handed back like that.
    """

    name: ClassVar[str]
    """Registered name in the entry-point group `vambrace.attacks`."""
    needs: ClassVar[Access] = Access.GRADIENTS
    """What the model must give."""
    joint: ClassVar[bool] = False
    """Whether the outcome of a sample depends on the others."""
    norms: ClassVar[tuple[Norm, ...]] = ("l2",)
    """What `norm` may be."""

    norm: Norm = "l2"
    eps: Ratio | None = None
    quantised: bool = False

    def __post_init__(self) -> None:
        require_kinds(self)
        require_option(self.norm in self.norms, "norm", self.norm, " or ".join(f'"{each}"' for each in self.norms))
        holds = self.eps is None or (math.isfinite(self.eps) and self.eps >= 0)
        require_option(holds, "eps", self.eps, "a finite radius, 0 or more, or nothing")

    @property
    def enough(self) -> float:
        """The distance at which a success ends the search of its sample."""
        return 0.0 if self.eps is None else self.eps

    @abstractmethod
    def run(self, problem: Problem, *, progress: Progress) -> Attacked:
        """The nearest verified success of every sample, beyond `eps` too; the search of one within `enough` ends."""

    def __call__(
        self,
        model: Model,
        inputs: Tensor,
        goal: Goal | Tensor,
        *,
        rng: Streams | int = 0,
        ids: Tensor | None = None,
        start: Tensor | None = None,
        batch_size: int | None = None,
        surrogates: Sequence[Model] | None = None,
        progress: Progress = silent,
    ) -> Attacked:
        """Search for the nearest point to every input that reaches the goal.

        Args:
            model: gives what `needs` says; normalises inside, so that inputs, distances and bounds have the same units.
            inputs: float (n, ...), inside the model's bounds, on its device.
            goal: labels (n,) to get away from, or a goal such as `Targeted(classes)`.
            rng: seed or stream of all draws; global random state is neither read nor advanced.
            ids: int64 (n,), distinct, whose draws are whose; None: positions.
            start: first points like `inputs`, for attacks that use them; None: as the attack does without. Attacks that
                follow gradients do not ask about the input itself then, also where the model gets it wrong.
            batch_size: physical rows a forward; None: the attack's choice. Cost may depend on it, outcomes not.
            surrogates: models of the attacker's own, on whose mean logits the points are made (`attacks.transfer`);
                `model` is then only asked to judge them, and may give as little as labels. None: made on `model`.
            progress: told how many samples are done.

        Returns:
            Per sample; `out.distance` in `norm`, measured in float64; at most `eps` where that is given and success.

        Raises:
            AccessError: E110, for a model that gives too little.
            ConfigError: E108, E131 to E139, for arguments that cannot be used.
            ModelMisbehaved: E401 to E405, for a model that breaks its contract.
        """
        problem = self._posed(
            model, inputs, goal, rng=rng, ids=ids, start=start, batch_size=batch_size, surrogates=surrogates
        )
        if self.eps is None:
            return self._ran(problem, surrogates, progress)
        require_radius(self.eps, self.norm, model, problem.inputs)
        return censored(self._ran(problem, surrogates, progress), self.eps)

    def curve(
        self,
        model: Model,
        inputs: Tensor,
        goal: Goal | Tensor,
        *,
        eps: Sequence[float | str],
        rng: Streams | int = 0,
        ids: Tensor | None = None,
        start: Tensor | None = None,
        batch_size: int | None = None,
        surrogates: Sequence[Model] | None = None,
        progress: Progress = silent,
    ) -> Curve:
        """How many samples break within each of several radii, read off one run that stops at the smallest.

        No other radius costs anything: what was looked for all the time is a success within the smallest one, and it
        is there that the work is counted, as it would be without the others. What the run says of itself (`blind`,
        `finite`) holds at every radius.

        Args:
            model: see `__call__`, as for all arguments but `eps`.
            inputs: see there.
            goal: see there.
            eps: radii, in any order; fractions as text are read.
            rng: see there.
            ids: see there.
            start: see there.
            batch_size: see there.
            surrogates: see there.
            progress: see there.
        """
        wanted = radii(eps)
        problem = self._posed(
            model, inputs, goal, rng=rng, ids=ids, start=start, batch_size=batch_size, surrogates=surrogates
        )
        require_radius(wanted[-1], self.norm, model, problem.inputs)
        whole = dataclasses.replace(self, eps=wanted[0])._ran(problem, surrogates, progress)
        free = (_unpaid(censored(whole, each), whole.blind) for each in wanted[1:])
        return Curve(norm=self.norm, eps=wanted, outcomes=(censored(whole, wanted[0]), *free))

    def _ran(self, problem: Problem, surrogates: Sequence[Model] | None, progress: Progress) -> Attacked:
        if surrogates is None:
            return self.run(problem, progress=progress).charged(calls_a_row(problem.model))
        return transferred(self, problem, surrogates, withheld=False, progress=progress)

    def _posed(
        self,
        model: Model,
        inputs: Tensor,
        goal: Goal | Tensor,
        *,
        rng: Streams | int,
        ids: Tensor | None,
        start: Tensor | None,
        batch_size: int | None,
        surrogates: Sequence[Model] | None = None,
    ) -> Problem:
        require_access(model, self.needs if surrogates is None else Access.LABELS, method=self.name)
        return pose(model, inputs, goal, rng=rng, ids=ids, start=start, batch_size=batch_size, quantised=self.quantised)


def censored(outcome: Attacked, eps: float) -> Attacked:
    """The outcome with only the successes within `eps`; the others count as not found."""
    within = outcome.success & (outcome.distance <= eps)
    first = torch.where(within, outcome.first_success, -1)
    return dataclasses.replace(outcome, success=within, first_success=first)


def _unpaid(outcome: Attacked, blind: Tensor) -> Attacked:
    """The outcome without what its search cost, which is counted elsewhere."""
    nothing = {name: torch.zeros_like(outcome.forwards) for name in SPENT}
    first = torch.where(outcome.success, 0, -1)
    return dataclasses.replace(outcome, **nothing, first_success=first, sightless=blind, cost=Cost())

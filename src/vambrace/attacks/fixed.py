"""What all attacks of a fixed radius share: how they are called, and the curve over radii."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from vambrace.attacks.curve import Curve, radii, trace
from vambrace.attacks.kinds import require_kinds
from vambrace.attacks.transfer import transferred
from vambrace.core.access import Access, require_access
from vambrace.core.options import Norm, Options, Ratio, require
from vambrace.core.progress import silent
from vambrace.models.expectation import calls_a_row
from vambrace.search.loop import search
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
    from vambrace.search.rule import Rule

__all__ = ["FixedRadius", "require_option", "require_restarts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedRadius(Options):
    """An attack that searches inside a ball of radius `eps`. Derive with the options of one attack and its `rule`.

    Attributes:
        norm: "linf" or "l2", or "l1" where the attack has it.
        eps: radius in the units of the inputs; 0 asks about the inputs themselves.
        quantised: whether a success must survive being saved as an 8-bit image, and is handed back like that.
        loss: what is ascended: "ce" follows cross entropy and never saturates; "margin" works for every goal; "dlr",
            the difference of logits ratio, needs three classes, or four on the way to a class.
    """

    name: ClassVar[str]
    """Registered name in the entry-point group `vambrace.attacks`."""
    needs: ClassVar[Access] = Access.GRADIENTS
    """What the model must give."""
    joint: ClassVar[bool] = False
    """Whether the outcome of a sample depends on the others."""
    reuses: ClassVar[bool] = False
    """Whether a curve starts at each radius from what the smaller one left."""
    black_box: ClassVar[bool] = False
    """Whether a part of the search follows no gradients, although the whole needs them."""

    norms: ClassVar[tuple[Norm, ...]] = ("l2", "linf")
    """What `norm` may be."""

    norm: Literal["l1", "l2", "linf"] = "linf"
    eps: Ratio
    quantised: bool = False

    def __post_init__(self) -> None:
        require_kinds(self)
        require_option(self.norm in self.norms, "norm", self.norm, " or ".join(f'"{each}"' for each in self.norms))
        require_option(math.isfinite(self.eps) and self.eps >= 0, "eps", self.eps, "a finite radius, 0 or more")

    def rule(self) -> Rule:
        """What this attack adds to the search loop."""
        raise NotImplementedError

    def require_fit(self, problem: Problem) -> None:
        """Raise `ConfigError` where the options do not fit the goal, or the model as far as it is known."""

    def run(self, problem: Problem, *, progress: Progress = silent) -> Attacked:
        """Attack the samples of a checked problem; by its rule on the search loop, unless an attack does otherwise."""
        return search(problem, self.rule(), name=self.name, progress=progress)

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
        """Search for a point within `eps` of every input that reaches the goal.

        Args:
            model: gives gradients; normalises inside, so that inputs, eps and bounds have the same units. Without
                bounds the ball alone limits the change.
            inputs: float (n, ...), inside the model's bounds, on its device.
            goal: labels (n,) to get away from, or a goal such as `Targeted(classes)`.
            rng: seed or stream of all draws; global random state is neither read nor advanced.
            ids: int64 (n,), distinct, whose draws are whose; None: positions.
            start: first points like `inputs`, projected into the ball; None: as the attack's options say.
            batch_size: physical rows a forward; None: 128 on CPU, 512 elsewhere. Cost may depend on it, outcomes not.
            surrogates: models of the attacker's own, on whose mean logits the points are made (`attacks.transfer`);
                `model` is then only asked to judge them, and may give as little as labels. None: made on `model`.
            progress: told how many samples are done.

        Returns:
            Per sample; `out.distance <= eps` for all, measured in float64, and all inside the bounds.

        Raises:
            AccessError: E110, for a model that gives less than gradients.
            ConfigError: E108, E131 to E139, for arguments that cannot be used.
            ModelMisbehaved: E401 to E405, for a model that breaks its contract.
        """
        problem = self._posed(
            model, inputs, goal, rng=rng, ids=ids, start=start, batch_size=batch_size, surrogates=surrogates
        )
        require_radius(self.eps, self.norm, model, problem.inputs)
        return self._ran(problem, surrogates, progress)

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
        """The attack at several radii in place of `self.eps`; what a smaller radius breaks is not attacked again.

        Args:
            model: see `__call__`, as for all arguments but `eps`.
            inputs: see there.
            goal: see there.
            eps: radii, in any order; fractions as text are read. A `step_size` that was left out follows each of them.
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

        def attack(part: Problem, radius: float) -> Attacked:
            return dataclasses.replace(self, eps=radius)._ran(part, surrogates, progress)

        return trace(problem, wanted, self.norm, attack, reuses=self.reuses)

    def _ran(self, problem: Problem, surrogates: Sequence[Model] | None, progress: Progress) -> Attacked:
        if surrogates is None:
            return self.run(problem, progress=progress).charged(calls_a_row(problem.model))
        # What does not search by steps of its own rule would go on for ever, or spend all it has, without a success.
        withheld = type(self).run is FixedRadius.run
        return transferred(self, problem, surrogates, withheld=withheld, progress=progress)

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
        problem = pose(
            model, inputs, goal, rng=rng, ids=ids, start=start, batch_size=batch_size, quantised=self.quantised
        )
        self.require_fit(problem)
        return problem


def require_option(holds: bool, name: str, value: object, expected: str) -> None:
    """Raise `ConfigError` E130 unless an attack's option holds."""
    require(holds, seen=f"{name} {value!r}", expected=expected, fix=f"correct {name}", code="E130")


def require_restarts(restarts: int, *, random_start: bool) -> None:
    """Raise `ConfigError` E130 unless restarts can differ from one another."""
    require_option(restarts >= 1, "restarts", restarts, "1 or more")
    require_option(
        random_start or restarts == 1,
        "restarts",
        restarts,
        "1 when random_start is False, because every restart would repeat the first",
    )

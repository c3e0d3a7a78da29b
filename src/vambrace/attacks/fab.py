"""FAB: steps onto the linearised decision that are drawn back towards the input, for the nearest adversarial point.

    >>> import torch
    >>> from vambrace.attacks import FAB
    >>> FAB(norm="linf", targets=9).steps
    100

Every step goes from the point to the decision as a linear model would have it, and a little beyond, mixed with the step
that goes there from the input itself; a point that is a success is first moved back towards the input. With `eps`
a sample stops at its first success within, which is how ensembles use it. When not: with several hundred classes and
without `targets`, since a step then takes one gradient a class.

Reference: Croce & Hein 2020, "Minimally distorted Adversarial Examples with a Fast Adaptive Boundary Attack",
arXiv 1907.02044, section 2 and algorithm 1; with `targets`, as AutoAttack uses it (arXiv 2003.01690, section 5).
Three differences. A success is linearised where it was found and not where it is moved back to, which saves a forward
of every such step. Steps aim at the margin from which a success is clear: points that end on the decision itself are
no successes and would stay there. The final search of the paper is part of `steps` and one try long, since with few
steps more of them cost more than they bring; AutoAttack leaves it out.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

import torch

from vambrace.attacks.aim import Aim
from vambrace.attacks.closing import Box, Closing, won
from vambrace.attacks.fixed import require_option
from vambrace.attacks.halves import run_wide
from vambrace.attacks.nearest import Nearest
from vambrace.attacks.retreat import clear_lead, noted, opened, point_between
from vambrace.attacks.rivals import Rivals, rivals_of
from vambrace.core.findings import Cost
from vambrace.core.options import Norm, Ratio
from vambrace.ops import draws
from vambrace.ops.hyperplanes import onto_hyperplane
from vambrace.ops.losses import require_loss
from vambrace.ops.norms import lengths
from vambrace.ops.rows import assign, spread
from vambrace.search.loop import search

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.goals import Goal
    from vambrace.core.progress import Progress
    from vambrace.ops.hyperplanes import Straight
    from vambrace.search.outcome import Attacked
    from vambrace.search.problem import Problem
    from vambrace.search.rule import Answer, Origin, Tensors

__all__ = ["FAB", "FastBoundary"]

_FAR = 0.1
"""Share of the box that random starts may come from while nothing was found and no radius is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FastBoundary(Closing):
    """The rule of FAB.

    Attributes:
        aim: the classes that starts go for, one after the other.
        rivals: the decisions of a step, where no class is aimed at.
        pull: largest share of the step that starts at the input.
        overshoot: length of a step over the way to the linear decision.
        back: where a success is moved to, as a share of its way from the input.
        final: steps at the end of a restart that search between its nearest success and the input.
    """

    aim: Aim
    rivals: Rivals
    pull: float
    overshoot: float
    back: float
    final: int

    @property
    def clean(self) -> bool:
        """Where classes are aimed at, to rank them."""
        return self.aim.targets is not None

    @property
    def slopes(self) -> int:
        """One a rival."""
        return self.rivals.count

    def anchor(self, origin: Origin) -> dict[str, Tensor]:
        """The inputs, and the ranked classes."""
        return {"inputs": origin.inputs} | self.aim.anchor(origin)

    def again(self, anchor: Tensors, restart: Tensor) -> Tensor:
        """For every class, or as often as asked for."""
        return self.aim.again(anchor, restart)

    def start(self, origin: Origin, anchor: Tensors, restart: Tensor, before: Tensors | None) -> dict[str, Tensor]:
        """The inputs for the first start of every class, then points drawn around them."""
        point = self.first(origin)
        shortest = anchor["inputs"].new_full((len(point),), math.inf, dtype=torch.float64)
        if before is not None:
            shortest = before["shortest"].clone()
            drawn = restart >= (anchor["targets"].shape[1] if self.clean else 1)
            point = torch.where(spread(drawn, point), self._drawn(origin, restart, shortest), origin.inputs)
        return {
            "point": point,
            "time": torch.zeros_like(restart),
            "shortest": shortest,
            **opened(point, before),
            **self.aim.start(anchor, restart),
        }

    def slope(self, anchor: Tensors, state: Tensors, logits: Tensor, goal: Goal) -> Tensor:
        """Of the leads of the rivals over the label."""
        return self.aim.slope(state, logits, goal) if self.clean else self.rivals.slope(logits, goal)

    def step(self, anchor: Tensors, state: Tensors, answer: Answer) -> dict[str, Tensor]:
        """Note a nearer success, and go on; towards the end, search between it and the input."""
        change, success, time = self.change(anchor, state), won(answer), state["time"]
        first_try = self.steps - self.final
        columns = noted(state, change, answer, success, self.norm, time > first_try)
        point = self._onward(anchor, state, answer, success, change)
        trying = (time >= first_try) & columns["outer_length"].isfinite()
        assign(point, trying, point_between(anchor["inputs"], columns))
        shortest = torch.minimum(state["shortest"], columns["outer_length"])
        return {**state, **columns, "point": point, "time": time + 1, "shortest": shortest}

    def _onward(self, anchor: Tensors, state: Tensors, answer: Answer, success: Tensor, change: Tensor) -> Tensor:
        inputs, norm = anchor["inputs"], cast("Straight", self.norm)
        if self.clean:
            lead, gradient = self.aim.value(state, answer.logits, answer.goal), answer.slope
        else:
            lead, gradient = self.rivals.nearest(answer, self.norm)
        # On the decision itself a point is no success and has nowhere to go: what is aimed at is a clear one.
        lead = lead - clear_lead(answer)
        share = torch.where(success, self.back, torch.ones_like(success, dtype=change.dtype))
        base = torch.addcmul(inputs, change, spread(share, change))
        along = (gradient * change).flatten(1).sum(dim=1)
        low, high = self.box.low, self.box.high
        near = onto_hyperplane(base, gradient, along * (1.0 - share) - lead, low, high, norm)
        far = onto_hyperplane(inputs, gradient, along - lead, low, high, norm)
        tiny = self.box.width * torch.finfo(change.dtype).eps
        one, other = lengths(near, norm).clamp_(min=tiny), lengths(far, norm).clamp_(min=tiny)
        pull = spread((one / (one + other)).clamp_(max=self.pull), change)
        onward = torch.lerp(base.add_(near, alpha=self.overshoot), torch.add(inputs, far, alpha=self.overshoot), pull)
        return self.box.clip(onward)

    def _drawn(self, origin: Origin, restart: Tensor, shortest: Tensor) -> Tensor:
        """Half as far as the nearest success, or as the radius that is asked for, in a drawn direction."""
        inputs, stream, shape = origin.inputs, origin.rng.child("start"), tuple(origin.inputs.shape[1:])
        if self.norm == "linf":
            noise = draws.uniform(stream, origin.ids, step=restart, shape=shape, low=-1.0, high=1.0, dtype=inputs.dtype)
        else:
            noise = draws.normal(stream, origin.ids, step=restart, shape=shape, dtype=inputs.dtype)
        radius = shortest.clamp(max=self.near) if self.near else shortest
        if not self.near:
            reach = self.box.reach(inputs, self.norm).double()
            far = torch.where(reach.isfinite(), reach * _FAR, 1.0)
            radius = torch.where(radius.isfinite(), radius, far)
        scale = (radius / 2).to(inputs.dtype) / lengths(noise, self.norm)
        return self.box.clip(torch.addcmul(inputs, noise, spread(scale, noise)))


@dataclass(frozen=True, slots=True, kw_only=True)
class FAB(Nearest):
    """Fast adaptive boundary: nearest points in linf, l2 or l1.

    A start costs `steps + 1` forwards and `steps` backwards, or `steps` times the number of other classes without
    `targets`; a sample also a verification and, with `targets`, one forward to rank the classes.

    Attributes:
        norm: "linf", "l2" or "l1".
        eps: a success within this radius ends the search of its sample; None: the nearest one is wanted.
        steps: of one start.
        restarts: starts, for each of the targets if there are; the first one is at the input, the others are drawn.
        targets: how many classes to go for in turn, the nearest first, each from starts of its own (9: the targeted FAB
            of AutoAttack); at most all other classes are used. Any class but the label is a success. None: every
            step compares all other classes; a goal that names no label goes by its margin.
        pull: largest share, 0 to 1, of the step that starts at the input.
        overshoot: length of a step over the way to the linear decision, 1 or more.
        back: where a success is moved to, as a share, 0 to 1, of its way from the input.
        final: steps at the end of a start that search between its nearest success and the input.
    """

    name: ClassVar[str] = "fab"
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2", "l1")

    norm: Norm = "linf"
    steps: int = 100
    restarts: int = 1
    targets: int | None = None
    pull: Ratio = 0.1
    overshoot: Ratio = 1.05
    back: Ratio = 0.9
    final: int = 1

    def __post_init__(self) -> None:
        Nearest.__post_init__(self)
        require_option(self.steps >= 1, "steps", self.steps, "1 or more")
        require_option(self.restarts >= 1, "restarts", self.restarts, "1 or more")
        require_option(self.targets is None or self.targets >= 1, "targets", self.targets, "1 or more, or nothing")
        require_option(0 <= self.pull <= 1, "pull", self.pull, "a share, 0 to 1")
        require_option(1 <= self.overshoot < math.inf, "overshoot", self.overshoot, "1 or more")
        require_option(0 < self.back <= 1, "back", self.back, "a share, more than 0, at most 1")
        require_option(0 <= self.final <= self.steps, "final", self.final, "0 to the number of steps")

    def run(self, problem: Problem, *, progress: Progress) -> Attacked:
        """The nearest verified success of every sample."""
        return run_wide(self, problem, progress=progress)

    def seek(self, problem: Problem, *, progress: Progress) -> Attacked:
        """The same, for inputs of float32 or wider."""
        rivals, cost = Rivals(count=1), Cost()
        if self.targets is None:
            rivals, cost = rivals_of(problem, None)
        else:
            require_loss("margin", problem.goal, toward=True)
        aim = Aim(loss="margin", restarts=self.restarts, targets=self.targets)
        rule = FastBoundary(
            norm=self.norm,
            box=Box.of(problem),
            steps=self.steps,
            restarts=aim.starts,
            near=self.enough,
            aim=aim,
            rivals=rivals,
            pull=self.pull,
            overshoot=self.overshoot,
            back=self.back,
            final=self.final,
        )
        out = search(problem, rule, name=self.name, progress=progress)
        return dataclasses.replace(out, cost=out.cost + cost)

"""DDN: the direction of a step comes from the gradient, its distance from the input from a radius of its own.

    >>> import torch
    >>> from vambrace.attacks import DDN
    >>> DDN(steps=200)
    DDN(norm='l2', eps=None, quantised=False, steps=200, gamma=0.05, radius=None)

Every point lies on a sphere around its input (and inside the box). The sphere shrinks where the point is a success
and grows where it is none, so that points go back and forth across the decision while they slide along it. Needs no
weight between distance and loss, unlike the attack of Carlini and Wagner. When not: for norms other than l2; FMN does
those.

Reference: Rony et al. 2019, "Decoupling Direction and Norm for Efficient Gradient-Based L2 Adversarial Attacks and
Defenses", arXiv 1811.09600, section 4 and algorithm 1. Without the rounding to grey levels of its line 11; and the
first radius, 1 there, follows the decision where that is nearer, since a radius only falls by `gamma` a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from vambrace.attacks.closing import Box, Closing, annealed, falling_loss, won
from vambrace.attacks.fixed import require_option
from vambrace.attacks.halves import run_wide
from vambrace.attacks.nearest import Nearest
from vambrace.attacks.rivals import dual_lengths
from vambrace.core.options import Norm, Ratio
from vambrace.ops import losses
from vambrace.ops.norms import lengths, steepest
from vambrace.ops.rows import spread
from vambrace.search.loop import search

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.goals import Goal
    from vambrace.core.progress import Progress
    from vambrace.search.outcome import Attacked
    from vambrace.search.problem import Problem
    from vambrace.search.rule import Answer, Origin, Tensors

__all__ = ["DDN", "Decoupled"]

_LAST_STEP = 0.01
"""Length of the last step, as a share of the first one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decoupled(Closing):
    """The rule of DDN.

    Attributes:
        gamma: share that a radius shrinks or grows by.
        radius: the first one, in input units; None: where a linear model has the decision, at most the box's width.
    """

    gamma: float
    radius: float | None

    def anchor(self, origin: Origin) -> dict[str, Tensor]:
        """The inputs, and how far from them the box reaches."""
        return {"inputs": origin.inputs, "reach": self.box.reach(origin.inputs, self.norm)}

    def start(self, origin: Origin, anchor: Tensors, restart: Tensor, before: Tensors | None) -> dict[str, Tensor]:
        """The first points, on no sphere yet."""
        return {
            "point": self.first(origin),
            "radius": torch.full_like(anchor["reach"], self.radius or 0.0),
            "time": torch.zeros_like(restart),
        }

    def slope(self, anchor: Tensors, state: Tensors, logits: Tensor, goal: Goal) -> Tensor:
        """Of cross entropy where the goal names a class, else of the margin."""
        return losses.slope(falling_loss(goal), logits, goal)

    def step(self, anchor: Tensors, state: Tensors, answer: Answer) -> dict[str, Tensor]:
        """Up the gradient, and then onto the sphere."""
        radius = state["radius"]
        if self.radius is None:
            radius = torch.where(state["time"] == 0, self._guess(answer), radius)
        radius = torch.where(won(answer), radius * (1.0 - self.gamma), radius * (1.0 + self.gamma))
        radius = torch.minimum(radius, anchor["reach"])
        first = self.box.width
        size = annealed(state["time"], self.steps, first, first * _LAST_STEP)
        change = self.change(anchor, state)
        change.addcmul_(steepest(answer.slope, "l2"), spread(size, change).to(change.dtype))
        kind = torch.finfo(change.dtype)
        # Where nothing has a gradient nothing moves, however large the sphere.
        scale = (radius / lengths(change, "l2").clamp_(min=kind.tiny)).clamp_(max=kind.max)
        change.mul_(spread(scale, change)).add_(anchor["inputs"])
        return {"point": self.box.clip(change), "radius": radius, "time": state["time"] + 1}

    def _guess(self, answer: Answer) -> Tensor:
        value = losses.value(falling_loss(answer.goal), answer.logits, answer.goal).abs().double()
        # Log odds of classes that are nearly alike do not vanish at the decision; the margin does.
        value = torch.minimum(value, answer.margin.abs())
        ahead = value / dual_lengths(answer.slope, "l2")
        return ahead.clamp_(max=self.box.width).to(answer.slope.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class DDN(Nearest):
    """Decoupled direction and norm: nearest points in l2.

    A sample costs `steps + 1` forwards and `steps` backwards unless it stops at `eps`, and a verification.

    Attributes:
        norm: "l2".
        eps: a success within this radius ends the search of its sample; None: the nearest one is wanted.
        steps: how many.
        gamma: share that the radius shrinks by after a success and grows by otherwise.
        radius: the first one, in the units of the inputs; None: where a linear model would have the decision, at most
            the width of the model's box (1 without a box).
    """

    name: ClassVar[str] = "ddn"
    norms: ClassVar[tuple[Norm, ...]] = ("l2",)

    steps: int = 100
    gamma: Ratio = 0.05
    radius: Ratio | None = None

    def __post_init__(self) -> None:
        Nearest.__post_init__(self)
        require_option(self.steps >= 1, "steps", self.steps, "1 or more")
        require_option(0 < self.gamma < 1, "gamma", self.gamma, "a share between 0 and 1")
        require_option(
            self.radius is None or 0 < self.radius < float("inf"), "radius", self.radius, "more than 0, or nothing"
        )

    def run(self, problem: Problem, *, progress: Progress) -> Attacked:
        """The nearest verified success of every sample."""
        return run_wide(self, problem, progress=progress)

    def seek(self, problem: Problem, *, progress: Progress) -> Attacked:
        """The same, for inputs of float32 or wider."""
        box = Box.of(problem)
        rule = Decoupled(
            norm=self.norm,
            box=box,
            steps=self.steps,
            near=self.enough,
            gamma=self.gamma,
            radius=self.radius,
        )
        return search(problem, rule, name=self.name, progress=progress)

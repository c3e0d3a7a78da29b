"""FMN: the nearest adversarial point in l0, l1, l2 or linf, by steps inside a ball whose radius follows the decision.

    >>> import torch
    >>> from vambrace.attacks import FMN
    >>> FMN(norm="linf").steps
    100

Until a sample has its first success, the radius is where a linear model would have the decision; from then on it
shrinks after every success and grows after every failure, by less and less. When not: it is one descent from the input
itself; a model that hides its gradients is better attacked from several starts.

Reference: Pintor et al. 2021, "Fast Minimum-norm Adversarial Attacks through Adaptive Norm Constraints",
arXiv 2102.12827, section 2 and algorithm 1. Four differences, without which it ends beside the decision of linear
models and finds nothing on half of the samples of adversarially trained ones: before the first success the radius grows
by `gamma` at least, points are moved out to it (l1, l2, linf), and steps keep their length (l0); for linf steps follow
the sign of the gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from vambrace.attacks.closing import Box, Closing, annealed, won
from vambrace.attacks.fixed import require_option
from vambrace.attacks.halves import run_wide
from vambrace.attacks.nearest import Nearest
from vambrace.attacks.rivals import dual_lengths
from vambrace.core.options import Norm, Ratio
from vambrace.ops import losses
from vambrace.ops.balls import shrink
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

__all__ = ["FMN", "FastMinimum"]

_LAST_STEP = 0.01
"""Length of the last step, as a share of the first one."""
_LAST_GAMMA = 0.001
"""What the radius moves by in the end."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FastMinimum(Closing):
    """The rule of FMN.

    Attributes:
        gamma: share that a radius shrinks or grows by at first.
        step_size: Euclidean length of the first step, in input units.
    """

    gamma: float
    step_size: float

    def anchor(self, origin: Origin) -> dict[str, Tensor]:
        """The inputs, and how far from them the box reaches."""
        return {"inputs": origin.inputs, "reach": self.box.reach(origin.inputs, self.norm).double()}

    def start(self, origin: Origin, anchor: Tensors, restart: Tensor, before: Tensors | None) -> dict[str, Tensor]:
        """The first points, without a success and, but for l0, without a radius."""
        point = self.first(origin)
        reach = anchor["reach"]
        count = lengths(point - origin.inputs, "l0").double().clamp_(min=1.0)
        return {
            "point": point,
            "radius": count if self.norm == "l0" else torch.full_like(reach, float("inf")),
            "shortest": torch.full_like(reach, float("inf")),
            "time": torch.zeros_like(restart),
        }

    def slope(self, anchor: Tensors, state: Tensors, logits: Tensor, goal: Goal) -> Tensor:
        """Of the margin."""
        return losses.slope("margin", logits, goal)

    def step(self, anchor: Tensors, state: Tensors, answer: Answer) -> dict[str, Tensor]:
        """Move the radius, go up the gradient, and come back into the ball and the box."""
        change, success = self.change(anchor, state), won(answer)
        shortest = torch.minimum(state["shortest"], torch.where(success, lengths(change, self.norm).double(), math.inf))
        radius = torch.minimum(self._radius(state, answer, success, shortest, change), anchor["reach"])
        lost, size = shortest.isinf(), annealed(state["time"], self.steps, self.step_size, self.step_size * _LAST_STEP)
        if self.norm == "l0":
            size = torch.where(lost, self.step_size, size)
        change.addcmul_(self._direction(answer.slope), spread(size, change).to(change.dtype))
        if self.norm != "l0":
            outward = radius / lengths(change, self.norm).double().clamp_(min=torch.finfo(torch.float64).tiny)
            outward = torch.where(lost & (outward > 1.0) & outward.isfinite(), outward, 1.0)
            outward = outward.clamp(max=torch.finfo(change.dtype).max)  # infinity times no change is no number
            change.mul_(spread(outward, change).to(change.dtype))
        point = self.box.clip(shrink(change, radius, self.norm).add_(anchor["inputs"]))
        return {"point": point, "radius": radius, "shortest": shortest, "time": state["time"] + 1}

    def _radius(self, state: Tensors, answer: Answer, success: Tensor, shortest: Tensor, change: Tensor) -> Tensor:
        radius, gamma = state["radius"], annealed(state["time"], self.steps, self.gamma, _LAST_GAMMA)
        if self.norm == "l0":
            gamma = torch.where(shortest.isinf(), self.gamma, gamma)
            return _next_count(radius, shortest, gamma, success)
        margin = answer.goal.margin(answer.logits).abs().double()
        ahead = lengths(change, self.norm).double() + margin / dual_lengths(answer.slope, self.norm)
        ahead = torch.where(radius.isinf(), ahead, torch.maximum(ahead, radius * (1.0 + self.gamma)))
        smaller = torch.minimum(radius * (1.0 - gamma), shortest)
        larger = torch.where(shortest.isinf(), ahead, radius * (1.0 + gamma))
        return torch.where(success, smaller, larger)

    def _direction(self, gradients: Tensor) -> Tensor:
        """Of Euclidean length one."""
        if self.norm != "linf":
            return steepest(gradients, "l2")
        return gradients.sign() / math.sqrt(math.prod(gradients.shape[1:]))


@dataclass(frozen=True, slots=True, kw_only=True)
class FMN(Nearest):
    """Fast minimum norm: nearest points in l0, l1, l2 or linf.

    A sample costs `steps + 1` forwards and `steps` backwards unless it stops at `eps`, and a verification.

    Attributes:
        norm: "l0", "l1", "l2" or "linf"; l0 counts changed elements.
        eps: a success within this radius ends the search of its sample; None: the nearest one is wanted.
        steps: how many.
        gamma: share that the radius moves by at first; it falls to 0.001.
        step_size: Euclidean length of the first step in the units of the inputs, falling to a hundredth of it; None:
            the width of the model's box (1 without a box).
    """

    name: ClassVar[str] = "fmn"
    norms: ClassVar[tuple[Norm, ...]] = ("l0", "l1", "l2", "linf")

    steps: int = 100
    gamma: Ratio = 0.05
    step_size: Ratio | None = None

    def __post_init__(self) -> None:
        Nearest.__post_init__(self)
        require_option(self.steps >= 1, "steps", self.steps, "1 or more")
        require_option(0 < self.gamma < 1, "gamma", self.gamma, "a share between 0 and 1")
        require_option(
            self.step_size is None or 0 < self.step_size < float("inf"),
            "step_size",
            self.step_size,
            "more than 0, or nothing",
        )

    def run(self, problem: Problem, *, progress: Progress) -> Attacked:
        """The nearest verified success of every sample."""
        return run_wide(self, problem, progress=progress)

    def seek(self, problem: Problem, *, progress: Progress) -> Attacked:
        """The same, for inputs of float32 or wider."""
        box = Box.of(problem)
        rule = FastMinimum(
            norm=self.norm,
            box=box,
            steps=self.steps,
            near=self.enough,
            gamma=self.gamma,
            step_size=box.width if self.step_size is None else self.step_size,
        )
        return search(problem, rule, name=self.name, progress=progress)


def _next_count(radius: Tensor, shortest: Tensor, gamma: Tensor, success: Tensor) -> Tensor:
    """How many elements may change next: at least one fewer after a success, one more otherwise, and never none."""
    fewer = torch.minimum(torch.minimum(radius - 1.0, (radius * (1.0 - gamma)).floor()), shortest)
    more = torch.maximum(radius + 1.0, (radius * (1.0 + gamma)).floor())
    return torch.where(success, fewer, more).clamp_(min=1.0)

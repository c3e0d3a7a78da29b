"""What the rules of all nearest-point attacks share: they keep the nearest success, and move inside the model's box."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from vambrace.core.goals import Targeted, Untargeted
from vambrace.ops.norms import lengths
from vambrace.ops.projections import inner_box
from vambrace.search.judge import judge
from vambrace.search.rule import Plain

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.goals import Goal
    from vambrace.core.options import Norm
    from vambrace.ops.losses import Loss
    from vambrace.search.problem import Problem
    from vambrace.search.rule import Answer, Keeps, Origin, Tensors

__all__ = ["Box", "Closing", "annealed", "falling_loss", "won"]


@dataclass(frozen=True, slots=True, eq=False)
class Box:
    """The model's box, for searches over many samples.

    Attributes:
        low: smallest values, broadcasting against a sample; -inf without a box.
        high: largest values; +inf without a box.
        width: the widest distance between the two; 1 without a box.
    """

    low: Tensor
    high: Tensor
    width: float

    @classmethod
    def of(cls, problem: Problem) -> Box:
        """The box of the model under attack, rounded inward to the dtype of the inputs."""
        bounds = problem.model.bounds
        return cls(*inner_box(bounds, problem.inputs), 1.0 if bounds is None else bounds.span)

    def clip(self, points: Tensor) -> Tensor:
        """The nearest points (n, ...) inside."""
        return points.clamp(self.low, self.high)

    def reach(self, inputs: Tensor, norm: Norm) -> Tensor:
        """How far the furthest point of the box lies from each input: (n,)."""
        return lengths(torch.maximum(inputs - self.low, self.high - inputs), norm)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Closing(Plain):
    """Base of a rule that keeps the nearest success, however far it is.

    Attributes:
        norm: what is made small.
        box: where points may be.
        steps: of one restart.
        restarts: starts a sample gets.
        near: a success within this distance ends the search of its sample.
    """

    norm: Norm
    box: Box
    steps: int
    restarts: int = 1
    near: float = 0.0

    @property
    def eps(self) -> float:
        """Any distance."""
        return math.inf

    @property
    def keeps(self) -> Keeps:
        """The nearest."""
        return "nearest"

    @property
    def enough(self) -> float:
        """As given."""
        return self.near

    def anchor(self, origin: Origin) -> dict[str, Tensor]:
        """The inputs."""
        return {"inputs": origin.inputs}

    def first(self, origin: Origin) -> Tensor:
        """Fresh points: the caller's start points inside the box, or the inputs."""
        return origin.inputs.clone() if origin.start is None else self.box.clip(origin.start)

    def change(self, anchor: Tensors, state: Tensors) -> Tensor:
        """From the inputs to the points."""
        return state["point"] - anchor["inputs"]


def won(answer: Answer) -> Tensor:
    """Which points are successes, as the loop sees it: bool (m,)."""
    return judge(answer.logits, answer.goal.margin(answer.logits)).won


def falling_loss(goal: Goal) -> Loss:
    """Cross entropy where the goal names a class, else the goal's margin."""
    return "ce" if isinstance(goal, Untargeted | Targeted) else "margin"


def annealed(time: Tensor, steps: int, first: float, last: float) -> Tensor:
    """From `first` down to `last` along half a cosine, after `time` of `steps` steps: float64 (m,)."""
    share = (1.0 + torch.cos(time.double() * (math.pi / max(steps, 1)))) / 2.0
    return last + (first - last) * share

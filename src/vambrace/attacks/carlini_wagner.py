"""The l2 attack of Carlini and Wagner: distance and margin weighed against one another, and the weight searched for.

    >>> from vambrace.attacks import CarliniWagner
    >>> CarliniWagner(searches=5).steps
    1000

Adam lowers ||x - input||^2 + weight * max(0, confidence - margin) over a variable whose tanh is the point, so that
every point lies inside the box. Each search starts anew with another weight: ten times as large until one succeeds,
then halfway between the largest that failed and the smallest that succeeded. The nearest success of all points of
all searches is what counts, and no sample's search depends on how another one goes. When not: with a small budget;
DDN and FMN come nearer with a fraction of the steps.

Reference: Carlini & Wagner 2017, "Towards Evaluating the Robustness of Neural Networks", arXiv 1608.04644, sections V
and VI.A (loss f6). The first weight there is 0.001 for all samples; here it follows the slope of each.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from vambrace.attacks.closing import Box, Closing
from vambrace.attacks.fixed import require_option
from vambrace.attacks.halves import run_wide
from vambrace.attacks.nearest import Nearest
from vambrace.core.goals import Targeted, Untargeted
from vambrace.core.options import Norm, Ratio, require
from vambrace.ops import losses
from vambrace.ops.rows import spread
from vambrace.search.loop import search

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.goals import Goal
    from vambrace.core.progress import Progress
    from vambrace.search.outcome import Attacked
    from vambrace.search.problem import Problem
    from vambrace.search.rule import Answer, Origin, Tensors

__all__ = ["CarliniWagner", "SureTargeted", "SureUntargeted", "Weighing"]

_INSIDE = 0.99
"""Share of the box that inputs are scaled into, where tanh has an inverse that is not too far out: at an end of the box
the slope of tanh is nearly zero, and elements there would take most of the steps to come away from it."""
_DECAY, _DECAY_SQUARE, _TINY = 0.9, 0.999, 1e-8
"""Adam's constants."""
_LEAST_WEIGHT = 1e-30
"""The first weight is at least that, and at most its inverse."""
_PROGRESS = 0.9999
"""A search ends early unless its loss falls to this share within a tenth of its steps."""


@dataclass(frozen=True, slots=True, eq=False)
class SureUntargeted(Untargeted):
    """Any class but the true one, ahead by `confidence`."""

    confidence: float

    def margin(self, logits: Tensor) -> Tensor:
        """Best other logit minus the true one, minus the confidence."""
        return Untargeted.margin(self, logits) - self.confidence

    def take(self, index: Tensor) -> SureUntargeted:
        """The goal of the samples at `index`."""
        return SureUntargeted(self.labels[index], self.confidence)


@dataclass(frozen=True, slots=True, eq=False)
class SureTargeted(Targeted):
    """Exactly the named class, ahead by `confidence`."""

    confidence: float

    def margin(self, logits: Tensor) -> Tensor:
        """Target logit minus the best other one, minus the confidence."""
        return Targeted.margin(self, logits) - self.confidence

    def take(self, index: Tensor) -> SureTargeted:
        """The goal of the samples at `index`."""
        return SureTargeted(self.classes[index], self.confidence)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weighing(Closing):
    """The rule of the attack of Carlini and Wagner; a restart is one search with one weight.

    Attributes:
        weight: the first one; None: what would just be enough were the model linear.
        step_size: of Adam.
        hasty: whether a search ends that makes no progress.
    """

    weight: float | None
    step_size: float
    hasty: bool

    def start(self, origin: Origin, anchor: Tensors, restart: Tensor, before: Tensors | None) -> dict[str, Tensor]:
        """The inputs with the first weight, or with one that the search before tells."""
        point = self.first(origin)
        variable = torch.atanh((point - self._middle) / self._half * _INSIDE)
        columns = {"point": point, "variable": variable, "mean": torch.zeros_like(point)}
        columns |= {"square": torch.zeros_like(point), "time": torch.zeros_like(restart)}
        unknown = torch.full(restart.shape, math.inf, dtype=torch.float64, device=point.device)
        flags = {
            "found": torch.zeros_like(restart, dtype=torch.bool),
            "over": torch.zeros_like(restart, dtype=torch.bool),
        }
        return columns | flags | {"loss": unknown} | self._weights(unknown, before)

    def slope(self, anchor: Tensors, state: Tensors, logits: Tensor, goal: Goal) -> Tensor:
        """Of the margin."""
        return losses.slope("margin", logits, goal)

    def step(self, anchor: Tensors, state: Tensors, answer: Answer) -> dict[str, Tensor]:
        """One step of Adam down the weighed sum."""
        after, time = dict(state), state["time"] + 1
        change, margin = self.change(anchor, state), answer.goal.margin(answer.logits).double()
        if self.weight is None:
            after["weight"] = torch.where(state["weight"] > 0, state["weight"], _just_enough(margin, answer.slope))
        weight = torch.where(margin < 0, after["weight"], 0.0)
        gradient = change.mul(2.0).sub_(answer.slope * spread(weight, change).to(change.dtype))
        gradient.mul_(torch.tanh(state["variable"]).square_().neg_().add_(1.0).mul_(self._half))
        after["mean"] = torch.lerp(gradient, state["mean"], _DECAY)
        after["square"] = torch.lerp(gradient.square(), state["square"], _DECAY_SQUARE)
        first = spread(1.0 - _DECAY ** time.double(), change).to(change.dtype)
        second = spread(1.0 - _DECAY_SQUARE ** time.double(), change).to(change.dtype)
        after["variable"] = state["variable"] - self.step_size * (after["mean"] / first) / (
            (after["square"] / second).sqrt_().add_(_TINY)
        )
        after["point"] = self.box.clip(torch.tanh(after["variable"]) * self._half + self._middle)
        after["time"] = time
        if self.hasty:
            loss = change.double().square().flatten(1).sum(dim=1) + weight * -margin
            due = state["time"] % math.ceil(self.steps / 10) == 0
            after["over"] = due & ~(loss <= _PROGRESS * state["loss"])
            after["loss"] = torch.where(due, loss, state["loss"])
        return after

    @property
    def _middle(self) -> Tensor:
        return (self.box.low + self.box.high) / 2

    @property
    def _half(self) -> Tensor:
        return (self.box.high - self.box.low) / 2

    def _weights(self, unknown: Tensor, before: Tensors | None) -> dict[str, Tensor]:
        """The weight of a search, the largest that failed and the smallest that succeeded."""
        if before is None:
            nothing = torch.zeros_like(unknown)
            return {"weight": nothing + (self.weight or 0.0), "failed": nothing, "succeeded": unknown.clone()}
        found, weight = before["found"], before["weight"]
        failed = torch.where(found, before["failed"], weight)
        succeeded = torch.where(found, weight, before["succeeded"])
        weight = torch.where(succeeded.isinf(), weight * 10.0, (failed + succeeded) / 2)
        return {"weight": weight, "failed": failed, "succeeded": succeeded}


@dataclass(frozen=True, slots=True, kw_only=True)
class CarliniWagner(Nearest):
    """Nearest points in l2 by gradient descent on distance and margin.

    A search costs at most `steps + 1` forwards and `steps` backwards. Needs a model with bounds.

    Attributes:
        norm: "l2".
        eps: a success within this radius ends the search of its sample; None: the nearest one is wanted.
        steps: of one search.
        searches: with one weight each.
        step_size: of Adam, in units of the variable whose tanh is the point.
        weight: of the margin in the first search; None: what would just be enough were the model linear, which no unit
            of inputs or logits changes (0.001 in the paper).
        confidence: by how much the margin must be above zero; a success ahead by less counts as none.
        hasty: whether a search ends early that has stopped making progress.
    """

    name: ClassVar[str] = "carlini_wagner"
    norms: ClassVar[tuple[Norm, ...]] = ("l2",)

    steps: int = 1000
    searches: int = 9
    step_size: Ratio = 0.01
    weight: Ratio | None = None
    confidence: Ratio = 0.0
    hasty: bool = True

    def __post_init__(self) -> None:
        Nearest.__post_init__(self)
        require_option(self.steps >= 1, "steps", self.steps, "1 or more")
        require_option(self.searches >= 1, "searches", self.searches, "1 or more")
        require_option(0 < self.step_size < math.inf, "step_size", self.step_size, "more than 0")
        require_option(
            self.weight is None or 0 < self.weight < math.inf, "weight", self.weight, "more than 0, or nothing"
        )
        require_option(0 <= self.confidence < math.inf, "confidence", self.confidence, "0 or more")

    def run(self, problem: Problem, *, progress: Progress) -> Attacked:
        """The nearest verified success of every sample."""
        require(
            problem.model.bounds is not None,
            seen="a model without bounds",
            expected="a box, which the tanh of this attack maps onto",
            fix="give the model bounds such as (0, 1), or use ddn or fmn, which need none",
            code="E143",
        )
        if self.confidence:
            problem = dataclasses.replace(problem, goal=_sure(problem.goal, self.confidence))
        out = run_wide(self, problem, progress=progress)
        return dataclasses.replace(out, margin=out.margin + self.confidence)

    def seek(self, problem: Problem, *, progress: Progress) -> Attacked:
        """The same for inputs of float32 or wider, and a goal that asks for the confidence."""
        rule = Weighing(
            norm=self.norm,
            box=Box.of(problem),
            steps=self.steps,
            restarts=self.searches,
            near=self.enough,
            weight=self.weight,
            step_size=self.step_size,
            hasty=self.hasty,
        )
        return search(problem, rule, name=self.name, progress=progress)


def _just_enough(margin: Tensor, gradients: Tensor) -> Tensor:
    """The weight above which the least weighed sum of a linear model lies beyond its decision: float64 (m,)."""
    steep = gradients.double().square().flatten(1).sum(dim=1)
    weight = 2.0 * margin.abs() / steep.clamp(min=torch.finfo(torch.float64).tiny)
    return weight.clamp(min=_LEAST_WEIGHT, max=1.0 / _LEAST_WEIGHT)


def _sure(goal: Goal, confidence: float) -> Goal:
    if isinstance(goal, Untargeted):
        return SureUntargeted(goal.labels, confidence)
    require(
        isinstance(goal, Targeted),
        seen=f"confidence {confidence:g} with a goal of type {type(goal).__name__}",
        expected="labels or targets, whose lead over other classes confidence is",
        fix="leave out confidence and let the goal's own margin ask for more",
        code="E135",
    )
    assert isinstance(goal, Targeted)
    return SureTargeted(goal.classes, confidence)

"""The fast gradient sign method and projected gradient descent.

    >>> import torch
    >>> from vambrace.attacks import PGD
    >>> PGD(norm="l2", eps=0.5, steps=10)
    PGD(norm='l2', eps=0.5, quantised=False, loss='ce', steps=10, step_size=None, restarts=1, random_start=True,
        sparsity=0.01)

Every iterate is judged, not only the last one, and a sample stops at its first verified success. When not: to call
a model robust. Both are weak alone; run APGD and more on what they leave.

References: Goodfellow, Shlens, Szegedy 2015, arXiv 1412.6572, section 4; Madry et al. 2018, arXiv 1706.06083,
section 2.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from vambrace.attacks.ball import Ball
from vambrace.attacks.fixed import FixedRadius, require_option, require_restarts
from vambrace.core.options import Norm, Ratio
from vambrace.ops import losses
from vambrace.search.rule import Plain

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.goals import Goal
    from vambrace.search.problem import Problem
    from vambrace.search.rule import Answer, Origin, Tensors

__all__ = ["Ascent", "FGSM", "PGD"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ascent(Plain):
    """Steps of one size up the gradient, each projected back: the rule of FGSM and PGD.

    Attributes:
        ball: where points may be.
        loss: what is ascended.
        steps: of one restart.
        step_size: length of a step in input units, in the ball's norm.
        restarts: starts a sample gets at most.
        random_start: whether starts are drawn.
    """

    ball: Ball
    loss: losses.Loss
    steps: int
    step_size: float
    restarts: int
    random_start: bool

    @property
    def norm(self) -> Literal["l1", "l2", "linf"]:
        return self.ball.norm

    @property
    def eps(self) -> float:
        return self.ball.eps

    def anchor(self, origin: Origin) -> dict[str, Tensor]:
        return self.ball.anchor(origin)

    def start(self, origin: Origin, anchor: Tensors, restart: Tensor, before: Tensors | None) -> dict[str, Tensor]:
        return {"point": self.ball.start(origin, anchor, restart, random=self.random_start)}

    def slope(self, anchor: Tensors, state: Tensors, logits: Tensor, goal: Goal) -> Tensor:
        return losses.slope(self.loss, logits, goal)

    def step(self, anchor: Tensors, state: Tensors, answer: Answer) -> dict[str, Tensor]:
        return {"point": self.ball.ascend(anchor, state["point"], answer.slope, self.step_size)}


@dataclass(frozen=True, slots=True, kw_only=True)
class FGSM(FixedRadius):
    """One step of length eps along the sign of the gradient (linf) or along the gradient (l2).

    l1: the whole length on the steepest elements, each changed as far as the box lets it, before the next one: what
    raises a linear loss most inside ball and box.

    The input itself is judged first: a sample the model already gets wrong succeeds at distance 0. A sample costs
    at most two forwards and one backward.

    Attributes:
        norm: "linf", "l2" or "l1".
        eps: radius in the units of the inputs.
        loss: "ce" follows cross entropy and never saturates; "margin" works for every goal; "dlr" is scale free.
    """

    name: ClassVar[str] = "fgsm"
    norms: ClassVar[tuple[Norm, ...]] = ("l1", "l2", "linf")
    loss: losses.Loss = "ce"

    def __post_init__(self) -> None:
        FixedRadius.__post_init__(self)
        require_option(self.loss in get_args(losses.Loss), "loss", self.loss, '"ce", "margin" or "dlr"')

    def require_fit(self, problem: Problem) -> None:
        losses.require_loss(self.loss, problem.goal, problem.model.num_classes)

    def rule(self) -> Ascent:
        """One step from the input."""
        return Ascent(
            ball=Ball(norm=self.norm, eps=self.eps),
            loss=self.loss,
            steps=1 if self.eps else 0,
            step_size=self.eps,
            restarts=1,
            random_start=False,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PGD(FixedRadius):
    """Steps up the gradient, each projected into the ball and the box.

    A restart that never succeeds costs `steps + 1` forwards and `steps` backwards.

    Attributes:
        norm: "linf", "l2" or "l1".
        eps: radius in the units of the inputs.
        loss: "ce" follows cross entropy and never saturates; "margin" works for every goal; "dlr" is scale free.
        steps: of one restart.
        step_size: in the units of the inputs; None: 2.5 * eps / steps, which can cross the ball and come back.
        restarts: starts at most; a sample stops at its first success.
        random_start: start at a point drawn from the ball; False: at the input.
        sparsity: l1 only: share of the elements that a step moves, at least one: the steepest of those that the box
            lets move, equally far each (Tramer & Boneh 2019, arXiv 1904.13000, section 4).
    """

    name: ClassVar[str] = "pgd"
    norms: ClassVar[tuple[Norm, ...]] = ("l1", "l2", "linf")
    loss: losses.Loss = "ce"
    steps: int = 40
    step_size: Ratio | None = None
    restarts: int = 1
    random_start: bool = True
    sparsity: Ratio = 0.01

    def __post_init__(self) -> None:
        FixedRadius.__post_init__(self)
        require_option(self.loss in get_args(losses.Loss), "loss", self.loss, '"ce", "margin" or "dlr"')
        require_option(self.steps >= 1, "steps", self.steps, "1 or more")
        require_option(
            self.step_size is None or 0 < self.step_size < float("inf"), "step_size", self.step_size, "more than 0"
        )
        require_restarts(self.restarts, random_start=self.random_start)
        require_option(0 < self.sparsity <= 1, "sparsity", self.sparsity, "a share, more than 0, at most 1")

    def require_fit(self, problem: Problem) -> None:
        losses.require_loss(self.loss, problem.goal, problem.model.num_classes)

    def rule(self) -> Ascent:
        """Steps of a fixed size."""
        return Ascent(
            ball=Ball(norm=self.norm, eps=self.eps, sparsity=self.sparsity),
            loss=self.loss,
            steps=self.steps if self.eps else 0,
            step_size=2.5 * self.eps / self.steps if self.step_size is None else self.step_size,
            restarts=self.restarts if self.eps else 1,
            random_start=self.random_start,
        )

"""APGD, projected gradient descent with momentum that chooses its own step sizes.

    >>> import torch
    >>> from vambrace.attacks import APGD
    >>> APGD(eps=8 / 255).steps
    100

The step starts at 2 eps and is halved at checkpoints, where too few steps raised the objective or the best value
stands still; the search then goes on from the best point. Time is per sample, so samples that joined the batch
later pass their checkpoints later. `APGD(eps=8 / 255, loss="dlr", targets=9)` is the targeted attack of AutoAttack:
it flees the label by way of one class after the other. When not: with few steps (below about 20) PGD is as good.

Reference: Croce & Hein 2020, arXiv 2003.01690, section 3 and algorithm 1. Where the paper and the authors' code
differ, this follows the code: a restart from the best point replaces the iterate that the checkpoint looked at, not
the one after it, which saves a step; and steps of which exactly the share `rho` raised the objective are too few.
"ce" follows cross entropy through the log odds, which order points equally (`vambrace.ops.losses`).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, get_args

import torch

from vambrace.attacks.aim import Aim, AimedAscent
from vambrace.attacks.ball import Ball
from vambrace.attacks.fixed import FixedRadius, require_option, require_restarts
from vambrace.attacks.sparse import SparseAscent
from vambrace.core.options import Norm, Ratio
from vambrace.ops import losses
from vambrace.ops.rows import assign, spread

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.search.problem import Problem
    from vambrace.search.rule import Answer, Origin, Tensors

__all__ = ["APGD", "AdaptiveAscent", "checkpoints"]


def checkpoints(steps: int) -> tuple[int, ...]:
    """The numbers of steps after which the step size is judged: w_j = ceil(p_j steps), below `steps`.

    p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06), in whole hundredths so that no rounding
    moves a checkpoint.

        >>> checkpoints(100)
        (22, 41, 57, 70, 80, 87, 93, 99)
    """
    before, now = 0, 22
    found: list[int] = []
    while now <= 100:
        found.append(-(-now * steps // 100))
        before, now = now, now + max(now - before - 3, 6)
    return tuple(sorted({each for each in found if each < steps}))


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveAscent(AimedAscent):
    """The rule of APGD.

    Attributes:
        rho: the step is halved unless more than this share of the steps since the last checkpoint raised the objective.
        momentum: weight of the new step against the last move, 1 for none.
    """

    rho: float
    momentum: float

    def start(self, origin: Origin, anchor: Tensors, restart: Tensor, before: Tensors | None) -> dict[str, Tensor]:
        point = self.ball.start(origin, anchor, restart, random=self.random_start)
        lowest = torch.full(restart.shape, float("-inf"), dtype=torch.float64, device=point.device)
        return {
            "point": point,
            "previous": point.clone(),
            "best": point.clone(),
            "best_gradient": torch.zeros_like(point),
            "time": torch.zeros_like(restart),
            "size": torch.full_like(lowest, 2.0 * self.eps).to(point.dtype),
            "value": lowest.clone(),
            "best_value": lowest.clone(),
            "checked_value": lowest,
            "raised": torch.zeros_like(restart),
            "halved": torch.ones_like(restart, dtype=torch.bool),
        } | self.aim.start(anchor, restart)

    def step(self, anchor: Tensors, state: Tensors, answer: Answer) -> dict[str, Tensor]:
        """Record the point just evaluated, judge the step size where due, and move on."""
        after, gradient = dict(state), answer.slope
        first, value = state["time"] == 0, self.aim.value(state, answer.logits, answer.goal).double()
        better = value > state["best_value"]
        assign(state["best"], better, state["point"])
        assign(state["best_gradient"], better, gradient)
        after["best_value"] = torch.where(better, value, state["best_value"])
        after["raised"] = state["raised"] + ((value > state["value"]) & ~first)
        after["value"] = value
        gradient = self._check(after, gradient)
        point = state["point"]
        reached = self.ball.ascend(anchor, point, gradient, spread(after["size"], point))
        move = (reached - point).mul_(self.momentum).add_(point)
        move.add_(point - state["previous"], alpha=1.0 - self.momentum)
        after["previous"] = point
        after["point"] = self.ball.project(anchor, move)
        assign(after["point"], first, reached)  # the first step has no move behind it
        after["time"] = state["time"] + 1
        return after

    def _check(self, after: dict[str, Tensor], gradient: Tensor) -> Tensor:
        """At its checkpoints, halve a sample's step and put it back on its best point; the gradients to go on with."""
        span = _spans(self.steps, gradient.device)[after["time"]]
        due = span > 0
        watching = gradient.device.type == "cpu"  # elsewhere a look at the rows makes the host wait
        if watching and not bool(due.any()):
            return gradient
        few = after["raised"] <= self.rho * span  # the paper writes <, its code counts an equal share as too few
        stuck = ~after["halved"] & (after["best_value"] <= after["checked_value"])
        halve = due & (few | stuck)
        after["size"] = torch.where(halve, after["size"] / 2, after["size"])
        after["halved"] = torch.where(due, halve, after["halved"])
        after["checked_value"] = torch.where(due, after["best_value"], after["checked_value"])
        after["raised"] = torch.where(due, 0, after["raised"])
        assign(after["point"], halve, after["best"])
        if watching and not bool(halve.any()):
            return gradient
        return torch.where(spread(halve, gradient), after["best_gradient"], gradient)


@dataclass(frozen=True, slots=True, kw_only=True)
class APGD(FixedRadius):
    """Projected gradient descent with momentum and step sizes of its own.

    A restart that never succeeds costs `steps + 1` forwards and `steps` backwards.

    Attributes:
        norm: "linf", "l2", or "l1" with steps on few elements (`vambrace.attacks.sparse`).
        eps: radius in the units of the inputs.
        loss: what is ascended: "ce" follows cross entropy and never saturates; "margin" works for every goal; "dlr" is
            the difference of logits ratio.
        steps: of one restart.
        restarts: starts at most, for each of the targets if there are; a sample stops at its first success.
        random_start: start at a point drawn from the ball; False: at the input.
        targets: how many classes to aim at in turn, the nearest first, each from a start of its own (9: the targeted
            APGD of AutoAttack); at most all other classes are used. Any class but the label is a success. One more
            forward a sample ranks the classes. None: the goal's own loss is raised.
        rho: the step is halved unless more than this share of the steps between two checkpoints raised the objective;
            not for l1.
        momentum: weight of the new step against the last move; 1 for none; not for l1.
        large_radii: l1 only: begin each start in balls of three and two times the radius, as AutoAttack does. Stronger
            where gradients mislead, else as strong; from about 20 steps on. Below four there is no room for it.
    """

    name: ClassVar[str] = "apgd"
    norms: ClassVar[tuple[Norm, ...]] = ("l1", "l2", "linf")
    loss: losses.Loss = "ce"
    steps: int = 100
    restarts: int = 1
    random_start: bool = True
    targets: int | None = None
    rho: Ratio = 0.75
    momentum: Ratio = 0.75
    large_radii: bool = False

    def __post_init__(self) -> None:
        FixedRadius.__post_init__(self)
        require_option(self.loss in get_args(losses.Loss), "loss", self.loss, '"ce", "margin" or "dlr"')
        require_option(self.steps >= 1, "steps", self.steps, "1 or more")
        require_restarts(self.restarts, random_start=self.random_start)
        require_option(self.targets is None or self.targets >= 1, "targets", self.targets, "1 or more, or nothing")
        require_option(0 <= self.rho <= 1, "rho", self.rho, "a share, 0 to 1")
        require_option(0 < self.momentum <= 1, "momentum", self.momentum, "more than 0, at most 1")
        require_option(not self.large_radii or self.norm == "l1", "large_radii", self.large_radii, 'False, but in "l1"')

    def require_fit(self, problem: Problem) -> None:
        """Raise `ConfigError` E135 unless loss and targets fit the goal and, as far as they are known, the classes."""
        losses.require_loss(self.loss, problem.goal, problem.model.num_classes, toward=self.targets is not None)

    def rule(self) -> AdaptiveAscent | SparseAscent:
        """Steps of adaptive size, and in l1 of adaptive sparsity."""
        ball, steps = Ball(norm=self.norm, eps=self.eps), self.steps if self.eps else 0
        aim = Aim(loss=self.loss, restarts=self.restarts, targets=self.targets) if self.eps else Aim(loss=self.loss)
        if self.norm == "l1":
            return SparseAscent(
                ball=ball, aim=aim, steps=steps, random_start=self.random_start, large_radii=self.large_radii
            )
        return AdaptiveAscent(
            ball=ball,
            aim=aim,
            steps=steps,
            random_start=self.random_start,
            rho=self.rho,
            momentum=self.momentum,
        )


@functools.lru_cache(maxsize=32)
def _spans(steps: int, device: torch.device) -> Tensor:
    """By number of steps taken, those since the checkpoint before where one is due, else 0: int64 (steps + 1,)."""
    spans = [0] * (steps + 1)
    before = 0
    for now in checkpoints(steps):
        spans[now], before = now - before, now
    return torch.tensor(spans, device=device)

"""R+FGSM: a random step first, then the step of the fast gradient method from where it led.

    >>> from vambrace.attacks import RFGSM
    >>> RFGSM(eps=8 / 255).share
    0.5

The random step leaves the region around the input where a model may have learned to give misleading gradients, so
that the gradient is taken at the noisy point. When not: to call a model robust; like every single step it is weak.

Reference: Tramer et al. 2018, arXiv 1705.07204, section 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, get_args

import torch

from vambrace.attacks.ball import Ball
from vambrace.attacks.fixed import FixedRadius, require_option
from vambrace.attacks.gradient import Ascent
from vambrace.core.options import Ratio
from vambrace.ops import draws, losses
from vambrace.ops.norms import steepest
from vambrace.ops.rows import spread

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.search.problem import Problem
    from vambrace.search.rule import Origin, Tensors

__all__ = ["RFGSM", "RandomStep"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomStep(Ascent):
    """The rule of R+FGSM: `Ascent` from a point one random step away.

    Attributes:
        first: length of the random step in input units, in the ball's norm.
    """

    first: float

    def start(self, origin: Origin, anchor: Tensors, restart: Tensor, before: Tensors | None) -> dict[str, Tensor]:
        """The input and a step along random signs (linf) or in a random direction (l2); a given start comes first."""
        shape, stream, dtype = tuple(origin.inputs.shape[1:]), origin.rng.child("start"), origin.inputs.dtype
        noise = draws.normal(stream, origin.ids, step=restart, shape=shape, dtype=dtype)
        point = origin.inputs + self.first * steepest(noise, self.norm)
        if origin.start is not None:
            point = torch.where(spread(restart == 0, point), origin.start, point)
        return {"point": self.ball.project(anchor, point)}


@dataclass(frozen=True, slots=True, kw_only=True)
class RFGSM(FixedRadius):
    """One step up the gradient at a point that is a random step away from the input.

    A restart that does not succeed costs two forwards and one backward.

    Attributes:
        norm: "linf" or "l2".
        eps: radius in the units of the inputs, which both steps together reach.
        loss: what is ascended: "ce", "margin" or "dlr".
        share: part of the radius that the random step takes; 0: FGSM.
        restarts: random steps that a sample gets at most.
    """

    name: ClassVar[str] = "r_fgsm"
    loss: losses.Loss = "ce"
    share: Ratio = 0.5
    restarts: int = 1

    def __post_init__(self) -> None:
        FixedRadius.__post_init__(self)
        require_option(self.loss in get_args(losses.Loss), "loss", self.loss, '"ce", "margin" or "dlr"')
        require_option(0 <= self.share < 1, "share", self.share, "a share, 0 or more and less than 1")
        require_option(self.restarts >= 1, "restarts", self.restarts, "1 or more")
        require_option(self.share > 0 or self.restarts == 1, "restarts", self.restarts, "1 when share is 0")

    def require_fit(self, problem: Problem) -> None:
        losses.require_loss(self.loss, problem.goal, problem.model.num_classes)

    def rule(self) -> RandomStep:
        """One step from a random place."""
        return RandomStep(
            ball=Ball(norm=self.norm, eps=self.eps),
            loss=self.loss,
            steps=1 if self.eps else 0,
            step_size=self.eps * (1 - self.share),
            restarts=self.restarts if self.eps else 1,
            random_start=True,
            first=self.eps * self.share,
        )

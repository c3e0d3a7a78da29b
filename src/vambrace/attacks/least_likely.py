"""Toward the class that the model finds least likely, in one step or in several.

    >>> from vambrace.attacks import LeastLikely
    >>> LeastLikely(eps=8 / 255).steps
    1

The attack finds the class itself, from the model's logits at the inputs. The goal says what counts as a success, so
with labels any class but the true one does. When not: to break as much as possible; away from the label is nearer.

Reference: Kurakin, Goodfellow, Bengio 2017, arXiv 1607.02533, section 2.3 (several steps), and arXiv 1611.01236,
section 2 (one step).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, get_args

import torch

from vambrace.attacks.ball import Ball
from vambrace.attacks.fixed import FixedRadius, require_option
from vambrace.attacks.gradient import Ascent
from vambrace.core.goals import Targeted
from vambrace.core.options import Ratio
from vambrace.ops import losses

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.goals import Goal
    from vambrace.search.problem import Problem
    from vambrace.search.rule import Origin, Tensors

__all__ = ["LeastLikely", "TowardLeast"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TowardLeast(Ascent):
    """The rule of `LeastLikely`: `Ascent` toward a class that is chosen before the first step."""

    @property
    def clean(self) -> bool:
        return True

    def anchor(self, origin: Origin) -> dict[str, Tensor]:
        if isinstance(origin.goal, Targeted):
            aim = origin.goal.classes
        else:
            assert origin.logits is not None
            # What is no number is nobody's class; such a sample ends at its first evaluation.
            aim = origin.logits.nan_to_num(nan=torch.inf).argmin(dim=1)
        return {**self.ball.anchor(origin), "aim": aim}

    def slope(self, anchor: Tensors, state: Tensors, logits: Tensor, goal: Goal) -> Tensor:
        return losses.slope(self.loss, logits, Targeted(anchor["aim"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastLikely(FixedRadius):
    """Steps up the gradient of the class that the model finds least likely at the input.

    A sample costs at most `steps + 2` forwards, the first of which finds the class, and `steps` backwards. Where the
    goal names a target, that is the class aimed at.

    Attributes:
        norm: "linf" or "l2".
        eps: radius in the units of the inputs.
        loss: what is ascended for the class: "ce", "margin" or "dlr".
        steps: of the search, which starts at the input.
        step_size: in the units of the inputs; None: eps / steps.
    """

    name: ClassVar[str] = "least_likely"
    loss: losses.Loss = "ce"
    steps: int = 1
    step_size: Ratio | None = None

    def __post_init__(self) -> None:
        FixedRadius.__post_init__(self)
        require_option(self.loss in get_args(losses.Loss), "loss", self.loss, '"ce", "margin" or "dlr"')
        require_option(self.steps >= 1, "steps", self.steps, "1 or more")
        size = self.step_size
        require_option(size is None or 0 < size < float("inf"), "step_size", size, "more than 0")

    def require_fit(self, problem: Problem) -> None:
        aimed = Targeted(torch.zeros(problem.goal.size, dtype=torch.int64))
        losses.require_loss(self.loss, aimed, problem.model.num_classes)

    def rule(self) -> TowardLeast:
        """Steps of a fixed size toward one class."""
        return TowardLeast(
            ball=Ball(norm=self.norm, eps=self.eps),
            loss=self.loss,
            steps=self.steps if self.eps else 0,
            step_size=self.eps / self.steps if self.step_size is None else self.step_size,
            restarts=1,
            random_start=False,
        )

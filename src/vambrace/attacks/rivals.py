"""The classes that a search by linear decisions compares with the label, and which decision is the nearest.

A goal that flees a label has one decision for every other class; a step takes the gradient of each. A goal of another
kind, such as a target, has one that counts: where its margin is zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from vambrace.core.findings import Cost
from vambrace.core.goals import Untargeted
from vambrace.ops import losses
from vambrace.ops.norms import lengths
from vambrace.search.judge import Oracle

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.goals import Goal
    from vambrace.core.options import Norm
    from vambrace.search.problem import Problem
    from vambrace.search.rule import Answer

__all__ = ["Rivals", "dual_lengths", "rivals_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rivals:
    """Which decisions are looked at.

    Attributes:
        count: how many, >= 1: the other classes of the highest logits; 1 for goals that flee no label.
    """

    count: int

    def slope(self, logits: Tensor, goal: Goal) -> Tensor:
        """What is differentiated: (m, k), or (s, m, k) for a count s above one."""
        if not isinstance(goal, Untargeted):
            return losses.slope("margin", logits, goal)
        classes = self._classes(logits, goal)
        found = torch.zeros(*classes.shape, logits.shape[1], dtype=logits.dtype, device=logits.device)
        found.scatter_(2, classes.unsqueeze(2), 1.0)
        found.scatter_(2, goal.labels.expand_as(classes).unsqueeze(2), -1.0)
        return found if self.count > 1 else found[0]

    def lead(self, logits: Tensor, goal: Goal) -> Tensor:
        """By how much each rival is ahead of the label, (s, m); above zero beyond the decision."""
        if not isinstance(goal, Untargeted):
            return goal.margin(logits).unsqueeze(0)
        own = logits.gather(1, goal.labels.unsqueeze(1))
        return (logits.gather(1, self._classes(logits, goal).T) - own).T

    def nearest(self, answer: Answer, norm: Norm) -> tuple[Tensor, Tensor]:
        """The decision that is nearest to every point were the model linear: its lead (m,) and gradient (m, ...)."""
        lead, gradients = self.lead(answer.logits, answer.goal), answer.slope
        if self.count == 1:
            return lead[0], gradients
        each = torch.stack([dual_lengths(gradient, norm) for gradient in gradients])
        best = (lead.abs().double() / each).argmin(dim=0)
        index = best.reshape(1, -1, *[1] * (gradients.dim() - 2)).expand(1, *gradients.shape[1:])
        return lead.gather(0, best.unsqueeze(0))[0], gradients.gather(0, index)[0]

    def _classes(self, logits: Tensor, goal: Untargeted) -> Tensor:
        others = logits.scatter(1, goal.labels.unsqueeze(1), float("-inf"))
        return others.topk(self.count, dim=1).indices.T


def rivals_of(problem: Problem, limit: int | None) -> tuple[Rivals, Cost]:
    """At most `limit` rivals (None: all) and what it cost to count the classes.

    A model that does not say how many classes it has is asked about one input; that row belongs to no sample and is
    counted as idle.
    """
    if not isinstance(problem.goal, Untargeted) or not len(problem.inputs):
        return Rivals(count=1), Cost()
    classes, cost = problem.model.num_classes, Cost()
    if classes is None:
        device = problem.inputs.device.type
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(device, enabled=False):
            answer = Oracle(problem.model, problem.most_class).logits(problem.inputs[:1])
        classes, cost = answer.shape[1], Cost(idle_forwards=1)
    others = max(1, classes - 1)
    return Rivals(count=others if limit is None else min(limit, others)), cost


def dual_lengths(gradients: Tensor, norm: Norm) -> Tensor:
    """How much a unit of change, measured in `norm`, is worth at most: (m, ...) to float64 (m,), above zero."""
    dual: dict[Norm, Norm] = {"l0": "linf", "l1": "linf", "l2": "l2", "linf": "l1"}
    return lengths(gradients.double(), dual[norm]).clamp_(min=torch.finfo(torch.float64).tiny)

"""APGD's rule for l1: steps on few elements, as many as the best point has changed, and step sizes that follow it.

A step moves the steepest elements by equal amounts. How many they are, and how far they go, is judged at regular
times by the best point so far: where it has become sparser, the step is long again and the search goes on from it;
where not, the step shrinks. So the search first settles where to change and then how much.

Reference: Croce & Hein 2021, "Mind the box", arXiv 2103.01208, section 3 and algorithm 1 (the search at one radius;
the paper's option to begin at larger radii is left out).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from vambrace.ops.norms import lengths
from vambrace.ops.projections_l1 import sparse_signs
from vambrace.ops.rows import assign, spread
from vambrace.search.rule import Plain

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.attacks.aim import Aim
    from vambrace.attacks.ball import Ball
    from vambrace.core.goals import Goal
    from vambrace.core.options import Norm
    from vambrace.search.rule import Answer, Origin, Tensors

__all__ = ["SparseAscent"]

_PERIOD = 0.04  # of the steps, between two judgements
_FIRST_SHARE = 0.2  # of the elements, moved until the first judgement
_THINNING = 1.5  # how many times fewer elements a step moves than the best point has changed
_SPARSER = 0.95  # what the best point must have fewer of, against the judgement before
_SLOWER = 1.5
_SMALLEST = 0.1  # of eps


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseAscent(Plain):
    """The rule of APGD in l1.

    Attributes:
        ball: where points may be, of norm "l1".
        aim: what is ascended, and how often.
        steps: of one restart.
        random_start: whether starts are drawn.
    """

    ball: Ball
    aim: Aim
    steps: int
    random_start: bool

    @property
    def norm(self) -> Norm:
        return self.ball.norm

    @property
    def eps(self) -> float:
        return self.ball.eps

    @property
    def restarts(self) -> int:
        return self.aim.starts

    @property
    def clean(self) -> bool:
        return self.aim.targets is not None

    def anchor(self, origin: Origin) -> dict[str, Tensor]:
        return self.ball.anchor(origin) | self.aim.anchor(origin)

    def again(self, anchor: Tensors, restart: Tensor) -> Tensor:
        return self.aim.again(anchor, restart)

    def start(self, origin: Origin, anchor: Tensors, restart: Tensor, before: Tensors | None) -> dict[str, Tensor]:
        point = self.ball.start(origin, anchor, restart, random=self.random_start)
        features = point[0].numel()
        changed = torch.full_like(restart, features)
        count = torch.full_like(restart, math.ceil(_FIRST_SHARE * features))
        if origin.start is not None:  # what a given start has changed already says how sparse it is
            given = _changed(point, anchor)
            first = restart == 0
            changed, count = torch.where(first, given, changed), torch.where(first, _thinned(given), count)
        return {
            "point": point,
            "best": point.clone(),
            "best_gradient": torch.zeros_like(point),
            "best_value": torch.full(restart.shape, float("-inf"), dtype=torch.float64, device=point.device),
            "time": torch.zeros_like(restart),
            "size": torch.full(restart.shape, self.eps, dtype=point.dtype, device=point.device),
            "count": count,
            "changed": changed,
        } | self.aim.start(anchor, restart)

    def slope(self, anchor: Tensors, state: Tensors, logits: Tensor, goal: Goal) -> Tensor:
        return self.aim.slope(state, logits, goal)

    def step(self, anchor: Tensors, state: Tensors, answer: Answer) -> dict[str, Tensor]:
        """Record the point just evaluated, judge sparsity and step size where due, and move on."""
        after, gradient = dict(state), answer.slope
        value = self.aim.value(state, answer.logits, answer.goal).double()
        better = value > state["best_value"]
        assign(state["best"], better, state["point"])
        assign(state["best_gradient"], better, gradient)
        after["best_value"] = torch.where(better, value, state["best_value"])
        gradient = self._judge(anchor, after, gradient)
        point = after["point"]
        move = sparse_signs(gradient, after["count"]).mul_(spread(after["size"], point))
        after["point"] = self.ball.project(anchor, move.add_(point))
        after["time"] = state["time"] + 1
        return after

    def _judge(self, anchor: Tensors, after: dict[str, Tensor], gradient: Tensor) -> Tensor:
        """Every few steps, see whether the best point has become sparser; the gradients to go on with."""
        time = after["time"]
        due = (time > 0) & (time % max(1, int(_PERIOD * self.steps)) == 0)
        if gradient.device.type == "cpu" and not bool(due.any()):
            return gradient
        changed = _changed(after["best"], anchor)
        sparser = due & (changed < _SPARSER * after["changed"])
        slower = (after["size"] / _SLOWER).clamp(min=_SMALLEST * self.eps)
        after["size"] = torch.where(sparser, self.eps, torch.where(due, slower, after["size"]))
        after["count"] = torch.where(due, _thinned(changed), after["count"])
        after["changed"] = torch.where(due, changed, after["changed"])
        assign(after["point"], sparser, after["best"])
        return torch.where(spread(sparser, gradient), after["best_gradient"], gradient)


def _changed(point: Tensor, anchor: Tensors) -> Tensor:
    return lengths(point - anchor["centre"], "l0").long()


def _thinned(changed: Tensor) -> Tensor:
    return (changed / _THINNING).long()  # rounded down, or two would stay two

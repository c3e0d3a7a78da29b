"""APGD's rule for l1: steps on few elements, as many as the best point has changed, and step sizes that follow it.

A step moves the steepest elements by equal amounts. How many they are, and how far they go, is judged at regular
times by the best point so far: where it has become sparser, the step is long again and the search goes on from it;
where not, the step shrinks. So the search first settles where to change and then how much.

With `large_radii` a start begins in a ball of three times the radius, goes on from the best point there in one of
twice, and only then in the ball that is meant: for 30 %, 30 % and 40 % of the steps. Outside of that ball nothing
counts as a success. Elements that matter are found sooner where there is room for many, and the smaller ball keeps
the steepest of them.

Reference: Croce & Hein 2021, "Mind the box", arXiv 2103.01208, section 3 and algorithm 1. Two steps of a start with
large radii only bring the best point into the smaller ball; the authors' code makes two more in their place.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import torch

from vambrace.attacks.aim import AimedAscent
from vambrace.ops.norms import lengths
from vambrace.ops.projections_l1 import project_l1, sparse_signs
from vambrace.ops.rows import assign, spread

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.search.rule import Answer, Origin, Tensors

__all__ = ["SparseAscent"]

_PERIOD = 0.04  # of the steps, between two judgements
_FIRST_SHARE = 0.2  # of the elements, moved until the first judgement
_THINNING = 1.5  # how many times fewer elements a step moves than the best point has changed
_SPARSER = 0.95  # what the best point must have fewer of, against the judgement before
_SLOWER = 1.5
_SMALLEST = 0.1  # of the radius
_TIMES = 3, 2, 1  # the radius meant, one after the other
_TENTHS = 3  # of the steps, in each of the larger balls


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseAscent(AimedAscent):
    """The rule of APGD in l1.

    Attributes:
        large_radii: whether a start begins in larger balls.
    """

    large_radii: bool = False

    def start(self, origin: Origin, anchor: Tensors, restart: Tensor, before: Tensors | None) -> dict[str, Tensor]:
        widest = _timetable(self.steps, self.large_radii, restart.device).widest
        ball = replace(self.ball, eps=self.eps * widest)
        point = ball.start(origin, anchor, restart, random=self.random_start)
        features = point[0].numel()
        changed = torch.full_like(restart, features)
        count = torch.full_like(restart, math.ceil(_FIRST_SHARE * features))
        if origin.start is not None:  # what a given start has changed already says how sparse it is
            given = _changed(point, anchor)
            first = restart == 0
            changed, count = torch.where(first, given, changed), torch.where(first, _thinned(given), count)
        state = {
            "point": point,
            "best": point.clone(),
            "best_gradient": torch.zeros_like(point),
            "best_value": torch.full(restart.shape, float("-inf"), dtype=torch.float64, device=point.device),
            "time": torch.zeros_like(restart),
            "size": torch.full(restart.shape, ball.eps, dtype=point.dtype, device=point.device),
            "count": count,
            "changed": changed,
        } | self.aim.start(anchor, restart)
        if self.large_radii:
            state["outside"] = torch.full_like(restart, widest > 1, dtype=torch.bool)
        return state

    def step(self, anchor: Tensors, state: Tensors, answer: Answer) -> dict[str, Tensor]:
        """Record the point just evaluated, judge sparsity and step size where due, and move on."""
        after, gradient = dict(state), answer.slope
        value = self.aim.value(state, answer.logits, answer.goal).double()
        better = value > state["best_value"]
        assign(state["best"], better, state["point"])
        assign(state["best_gradient"], better, gradient)
        after["best_value"] = torch.where(better, value, state["best_value"])
        table, time = _timetable(self.steps, self.large_radii, gradient.device), state["time"]
        gradient = self._judge(anchor, after, gradient, table)
        point, turn = after["point"], table.turn[time]
        size = after["size"]
        if self.large_radii:  # at a turn the best point itself goes into the smaller ball
            assign(point, turn, after["best"])
            size = size.masked_fill(turn, 0.0)
        move = sparse_signs(gradient, after["count"]).mul_(spread(size, point)).add_(point)
        after["time"] = time + 1
        radius = self._radius(table, after["time"], move)
        after["point"] = project_l1(move, anchor["centre"], radius, anchor["low"], anchor["high"])
        if self.large_radii:
            after["outside"] = table.times[after["time"].clamp(max=self.steps)] > 1
            self._turn(anchor, after, turn, radius)
        return after

    def _radius(self, table: _Timetable, time: Tensor, like: Tensor) -> Tensor:
        """Of the balls that points belong to which are evaluated at `time`, (m,)."""
        return (table.times[time.clamp(max=self.steps)] * self.eps).to(like.dtype)

    def _judge(self, anchor: Tensors, after: dict[str, Tensor], gradient: Tensor, table: _Timetable) -> Tensor:
        """Every few steps, see whether the best point has become sparser; the gradients to go on with."""
        due = table.due[after["time"]]
        if gradient.device.type == "cpu" and not bool(due.any()):
            return gradient
        radius = self._radius(table, after["time"], after["size"])
        changed = _changed(after["best"], anchor)
        sparser = due & (changed < _SPARSER * after["changed"])
        slower = torch.maximum(after["size"] / _SLOWER, _SMALLEST * radius)
        after["size"] = torch.where(sparser, radius, torch.where(due, slower, after["size"]))
        after["count"] = torch.where(due, _thinned(changed), after["count"])
        after["changed"] = torch.where(due, changed, after["changed"])
        assign(after["point"], sparser, after["best"])
        return torch.where(spread(sparser, gradient), after["best_gradient"], gradient)

    def _turn(self, anchor: Tensors, after: dict[str, Tensor], turn: Tensor, radius: Tensor) -> None:
        """Where a smaller ball begins, the search begins anew at its point, as sparse as that is."""
        if turn.device.type == "cpu" and not bool(turn.any()):
            return
        changed = _changed(after["point"], anchor)
        after["size"] = torch.where(turn, radius, after["size"])
        after["count"] = torch.where(turn, _thinned(changed), after["count"])
        after["changed"] = torch.where(turn, changed, after["changed"])
        after["best_value"] = after["best_value"].masked_fill(turn, float("-inf"))


class _Timetable(NamedTuple):
    """What a start does after so many steps; all (steps + 1,) but the first."""

    widest: int
    """How many radii wide the ball is that a start begins in."""
    times: Tensor
    """int64: how many radii wide the ball is that the point evaluated then belongs to."""
    due: Tensor
    """Bool: whether sparsity and step size are judged."""
    turn: Tensor
    """Bool: whether the next point is the first one in a smaller ball."""


@functools.lru_cache(maxsize=32)
def _timetable(steps: int, large_radii: bool, device: torch.device) -> _Timetable:
    wide = _TENTHS * steps // 10 if large_radii else 0
    lasts = (wide, 2 * wide, steps) if wide else (steps,)
    times, due, turn = [0] * (steps + 1), [False] * (steps + 1), [False] * (steps + 1)
    first = 0
    for times_radius, last in zip(_TIMES[-len(lasts) :], lasts, strict=True):
        period = max(1, int(_PERIOD * (last - first)))
        for time in range(first, last + 1):
            times[time] = times_radius
            due[time] = time > first and (time - first) % period == 0
        turn[last], first = last < steps, last + 1
    return _Timetable(times[0], *(torch.tensor(each, device=device) for each in (times, due, turn)))


def _changed(point: Tensor, anchor: Tensors) -> Tensor:
    return lengths(point - anchor["centre"], "l0").long()


def _thinned(changed: Tensor) -> Tensor:
    return (changed / _THINNING).long()  # rounded down, or two would stay two

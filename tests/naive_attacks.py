"""Slow attacks as the papers write them: one sample at a time, plain Python, float64. What ours are compared with.

They share nothing with the search loop: cross entropy is PyTorch's own but for flat logits, the l2 projection bisects,
the ledger is a counter that is incremented where a row is asked. Only the definition of a success (margin above 1e-5
of the two highest logits) and the draws of starts are the same by intent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

Function = Callable[[Tensor], Tensor]


@dataclass
class Found:
    """What became of one sample."""

    point: Tensor
    success: bool = False
    first_success: int = -1
    forwards: int = 0
    backwards: int = 0
    verifications: int = 0
    path: list[Tensor] = field(default_factory=list)


def project(point: Tensor, centre: Tensor, eps: float, norm: str, low: float, high: float) -> Tensor:
    """The nearest point of ball and box; the l2 case by bisection on the multiplier."""
    if norm == "linf":
        return torch.minimum(torch.maximum(point, (centre - eps).clamp(min=low)), (centre + eps).clamp(max=high))
    if (point.clamp(low, high) - centre).norm() <= eps:
        return point.clamp(low, high)
    inside, outside = 0.0, 1.0
    for _ in range(70):
        middle = (inside + outside) / 2
        if ((centre + middle * (point - centre)).clamp(low, high) - centre).norm() <= eps:
            inside = middle
        else:
            outside = middle
    return (centre + inside * (point - centre)).clamp(low, high)


def direction(gradient: Tensor, norm: str) -> Tensor:
    if norm == "linf":
        return gradient.sign()
    return gradient / gradient.norm() if gradient.norm() > 0 else gradient


def cross_entropy(logits: Tensor, label: int) -> Tensor:
    """Of one row (k,). Where all logits lie within one of each other, the others are followed as if 16 apart."""
    distance = float(logits.detach().max() - logits.detach().min())
    if distance > 1:
        return F.cross_entropy(logits[None], torch.tensor([label]))
    others, by = logits[torch.arange(len(logits)) != label], 16 / distance
    near = ((by * others).logsumexp(0) - math.log(len(others))) / by
    return F.softplus(near + math.log(len(others)) - logits[label])


def steeper(loss: Tensor | float) -> float:
    """How much steeper the log odds are than their cross entropy `loss`, along the same direction."""
    return -1 / math.expm1(-float(loss))


class Sample:
    """One sample under attack, with its counters."""

    def __init__(self, function: Function, given: Tensor, label: int, *, target: bool = False) -> None:
        self.function, self.given, self.label, self.target = function, given, label, target
        self.found = Found(point=given)

    def margin(self, logits: Tensor) -> float:
        own = float(logits[self.label])
        other = max(float(value) for place, value in enumerate(logits) if place != self.label)
        return own - other if self.target else other - own

    def won(self, logits: Tensor) -> bool:
        return self.margin(logits) > 1e-5 * float(logits.topk(2).values.abs().max())

    def evaluate(self, point: Tensor) -> tuple[bool, float, Tensor]:
        """Whether it is a verified success, the loss to raise, and its gradient (counted when it is used)."""
        self.found.forwards += 1
        self.found.path.append(point)
        leaf = point.clone().requires_grad_()
        logits = self.function(leaf[None])
        loss = cross_entropy(logits[0], self.label)
        loss = -loss if self.target else loss
        if self.won(logits[0].detach()):
            self.found.verifications += 1
            with torch.no_grad():
                if self.won(self.function(point[None])[0]):
                    self.found.success, self.found.first_success = True, self.found.forwards
                    self.found.point = point
                    return True, float(loss.detach()), torch.zeros_like(point)
        return False, float(loss.detach()), torch.autograd.grad(loss, leaf)[0]


def pgd(
    sample: Sample,
    starts: list[Tensor],
    *,
    norm: str,
    eps: float,
    steps: int,
    step_size: float,
    box: tuple[float, float],
) -> Found:
    """`starts` are the first points of each restart, already inside ball and box."""
    for start in starts:
        point = start
        for taken in range(steps + 1):
            won, _, gradient = sample.evaluate(point)
            if won:
                return sample.found
            if taken == steps:
                break
            sample.found.backwards += 1
            point = project(point + step_size * direction(gradient, norm), sample.given, eps, norm, *box)
        sample.found.point = point
    return sample.found


def apgd(
    sample: Sample,
    starts: list[Tensor],
    *,
    norm: str,
    eps: float,
    steps: int,
    box: tuple[float, float],
    rho: float = 0.75,
) -> Found:
    """Croce & Hein 2020, algorithm 1 and conditions 1 and 2, with the authors' code's order at checkpoints."""
    shares, width = [0.0, 0.22], 0.22
    while shares[-1] < 1:
        width = max(width - 0.03, 0.06)
        shares.append(shares[-1] + width)
    marks = [math.ceil(share * steps - 1e-9) for share in shares]
    for start in starts:
        values: list[float] = []
        point, previous, size = start, start, 2 * eps
        best_value, best, best_gradient = -math.inf, start, torch.zeros_like(start)
        at_mark, halved = -math.inf, True
        for taken in range(steps + 1):
            won, value, gradient = sample.evaluate(point)
            if won:
                return sample.found
            if taken == steps:
                break
            sample.found.backwards += 1
            values.append(value)
            if value > best_value:
                best_value, best, best_gradient = value, point, gradient
            if taken > 0 and taken in marks:
                begin = max(mark for mark in marks if mark < taken)
                rises = sum(values[place + 1] > values[place] for place in range(begin, taken))
                first = rises <= rho * (taken - begin)
                second = not halved and best_value <= at_mark
                halved, at_mark = first or second, best_value
                if halved:
                    size, point, gradient = size / 2, best, best_gradient
            reached = project(point + size * direction(gradient, norm), sample.given, eps, norm, *box)
            if taken == 0:
                moved = reached
            else:
                moved = point + 0.75 * (reached - point) + 0.25 * (point - previous)
                moved = project(moved, sample.given, eps, norm, *box)
            previous, point = point, moved
        sample.found.point = point
    return sample.found

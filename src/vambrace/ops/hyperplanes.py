"""The smallest change that reaches a hyperplane without leaving the box: a linear decision, as near as it can be.

In closed form for samples without a box; within one, each element moves until it meets its bound and the others
move further to make up for it. Exact, for all samples at once, in l1, l2 and linf.

    >>> import torch
    >>> points, normals = torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 1.0]])
    >>> low, high = torch.tensor(0.0), torch.tensor(1.0)
    >>> onto_hyperplane(points, normals, torch.tensor([0.5]), low, high, "linf").tolist()
    [[0.25, 0.25]]
    >>> points, normals = torch.tensor([[0.75, 0.5]]), torch.tensor([[2.0, 1.0]])
    >>> onto_hyperplane(points, normals, torch.tensor([0.875]), low, high, "linf").tolist()
    [[0.25, 0.375]]

Reference: Croce & Hein 2020, arXiv 1907.02044, section 2.1 and appendix A. Where they sort and bisect, Newton's method
finds the same root of the same function for l2 and linf, on CPU; elsewhere a binary search does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

from vambrace.ops.knots import last_within, may_look
from vambrace.ops.norms import peaks

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Straight", "onto_hyperplane"]

Straight = Literal["l1", "l2", "linf"]
"""Norms in which the nearest point of a hyperplane is found exactly."""


def onto_hyperplane(
    points: Tensor,
    normals: Tensor,
    gaps: Tensor,
    low: Tensor,
    high: Tensor,
    norm: Straight,
    *,
    looks: bool | None = None,
) -> Tensor:
    """The smallest change d, in `norm`, with normals . d = gaps and points + d in the box.

    Args:
        points: (n, ...), inside the box.
        normals: (n, ...), left as they are; where all zero nothing moves.
        gaps: (n,), how much the linear function must rise (or fall, where negative).
        low: smallest allowed values, broadcasting against `points`; may be -inf.
        high: largest allowed values; may be +inf.
        norm: what is made small.
        looks: whether the host looks at values on the way; None: on CPU only, where that is free.

    Returns:
        (n, ...). Where the box does not meet the hyperplane, the change that brings it nearest: every element that
        counts at its bound.
    """
    flat = points.flatten(1)
    # Scaled to a peak of one: tiny gradients must not vanish when they are squared.
    peak = peaks(normals).clamp(min=torch.finfo(flat.dtype).tiny).unsqueeze(1)
    normal = normals.flatten(1) / peak
    gap = gaps.to(flat.dtype).unsqueeze(1) / peak
    gap, normal = gap.abs(), torch.where(gap < 0, -normal, normal)
    room = torch.where(
        normal > 0, high.expand_as(points).flatten(1) - flat, flat - low.expand_as(points).flatten(1)
    ).clamp_(min=0.0)
    weight = normal.abs()
    room = torch.where(weight > 0, room, 0.0)
    looks = may_look(points) if looks is None else looks
    if norm == "l1":
        moved = _greedy(weight, room, gap)
    else:
        moved = _levelled(weight, room, gap, even=norm == "linf", looks=looks)
    return (moved * normal.sign()).reshape(points.shape)


def _levelled(weight: Tensor, room: Tensor, gap: Tensor, *, even: bool, looks: bool) -> Tensor:
    """Moves min(level, room) where `even`, else min(level weight, room), that together are worth the gap.

    Their worth is a concave, increasing, piecewise linear function of the level. Where the host may look, Newton's
    method from below ends at the root after finitely many steps; elsewhere the piece is found first (`ops.knots`).
    """
    pace = torch.ones_like(weight) if even else weight
    bends = room / pace if not even else room
    bends = torch.where(weight > 0, bends, 0.0)
    worth = weight * pace
    largest, tiny = torch.finfo(weight.dtype).max, torch.finfo(weight.dtype).tiny

    def onward(level: Tensor) -> Tensor:
        free = bends > level
        used = torch.where(free, 0.0, weight * room).sum(dim=1, keepdim=True)
        slope = torch.where(free, worth, 0.0).sum(dim=1, keepdim=True)
        return ((gap - used).clamp_(min=0.0) / slope.clamp_(min=tiny)).clamp_(max=largest)

    def within(level: Tensor) -> Tensor:
        return (weight * torch.minimum(level * pace, room)).sum(dim=1, keepdim=True) <= gap

    if looks:
        level = torch.zeros_like(gap)
        while bool(((root := onward(level)) > level).any()):
            level = torch.maximum(level, root)
    else:
        level, _ = last_within(F.pad(bends, (1, 0)).sort(dim=1).values, within)
        level = torch.maximum(level, onward(level))
    return torch.minimum(level * pace, room)


def _greedy(weight: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    """Moves along the elements of the largest weight first, each to its bound, until they are worth the gap."""
    order = weight.sort(dim=1, descending=True, stable=True).indices
    heavy, space = weight.gather(1, order), room.gather(1, order)
    worth = torch.where(heavy > 0, heavy * space, 0.0).cumsum(dim=1)
    before = torch.cat((torch.zeros_like(gap), worth[:, :-1]), dim=1)
    wanted = (gap - before).clamp_(min=0.0) / heavy.clamp(min=torch.finfo(weight.dtype).tiny)
    return torch.zeros_like(weight).scatter_(1, order, torch.minimum(wanted, space))

"""Balls of one radius a sample, for searches that move the radius: the nearest change that is no larger.

>>> import torch
>>> changes = torch.tensor([[3.0, -4.0], [0.5, 0.25]])
>>> shrink(changes, torch.tensor([2.5, 1.0]), "l2").tolist()
[[1.5, -2.0], [0.5, 0.25]]
>>> shrink(changes, torch.tensor([1.0, 1.0]), "l0").tolist()
[[0.0, -4.0], [0.5, 0.0]]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from vambrace.ops.knots import last_within, may_look
from vambrace.ops.norms import lengths
from vambrace.ops.rows import spread

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.options import Norm

__all__ = ["shrink"]


def shrink(changes: Tensor, radii: Tensor, norm: Norm, *, looks: bool | None = None) -> Tensor:
    """The nearest change, in the Euclidean sense, whose size is at most its sample's radius.

    l1: every element moves towards zero by one amount a sample and stops there (Duchi et al. 2008, ICML, section 3).
    The amount is the root of a convex, piecewise linear function: where the host may look, Newton's method ends there
    after finitely many steps; elsewhere the piece is found first (`ops.knots`). l0: the elements of the largest
    absolute value stay, the first of equal ones before the others.

    Args:
        changes: (n, ...), left as they are.
        radii: (n,), >= 0, may be infinite; for l0 a number of elements, rounded down.
        norm: of the ball.
        looks: whether the host looks at values on the way; None: on CPU only, where that is free.

    Returns:
        (n, ...), inside the ball up to rounding; a change that is small enough already comes back as it is.
    """
    if norm == "linf":
        limit = spread(radii, changes).to(changes.dtype)
        return torch.minimum(torch.maximum(changes, -limit), limit)
    if norm == "l2":
        size = lengths(changes, "l2")
        scale = radii.to(size.dtype) / size.clamp(min=torch.finfo(size.dtype).tiny)
        return changes * spread(scale.clamp(max=1.0), changes)
    if norm == "l1":
        return _soft(changes, radii, looks=may_look(changes) if looks is None else looks)
    flat = changes.flatten(1)
    order = flat.abs().sort(dim=1, descending=True, stable=True).indices
    place = torch.arange(flat.shape[1], device=flat.device)
    kept = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, order, place < radii.floor().unsqueeze(1))
    return torch.where(kept, flat, 0.0).reshape(changes.shape)


def _soft(changes: Tensor, radii: Tensor, *, looks: bool) -> Tensor:
    size = changes.abs().flatten(1)
    radius = radii.to(size.dtype).unsqueeze(1)
    large = size.sum(dim=1, keepdim=True) > radius

    def onward(cut: Tensor) -> Tensor:
        above = size > cut
        sums = torch.where(above, size, 0.0).sum(dim=1, keepdim=True)
        return torch.where(large, (sums - radius) / above.sum(dim=1, keepdim=True).clamp(min=1), 0.0)

    def within(cut: Tensor) -> Tensor:
        return (size - cut).clamp_(min=0.0).sum(dim=1, keepdim=True) >= radius

    if looks:
        cut = torch.zeros_like(radius)
        while bool(((root := onward(cut)) > cut).any()):
            cut = torch.maximum(cut, root)
    else:
        first, _ = last_within(F.pad(size, (1, 0)).sort(dim=1).values, within)
        cut = torch.maximum(first, onward(first))
    return changes.sign() * (size - cut).clamp_(min=0.0).reshape(changes.shape)

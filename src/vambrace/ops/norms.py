"""Sizes of changes, per sample, and the direction that raises a linear function most per unit of size.

>>> import torch
>>> change = torch.tensor([[3.0, -4.0], [0.0, 1.0]])
>>> lengths(change, "l2").tolist(), lengths(change, "linf").tolist()
([5.0, 1.0], [4.0, 1.0])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

import torch

from vambrace.ops.rows import spread

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.options import Norm

__all__ = ["distances", "lengths", "peaks", "steepest"]


def lengths(changes: Tensor, norm: Norm) -> Tensor:
    """The lp norm of each sample of `changes` (n, ...): (n,), in the dtype and units of `changes`; l0 counts."""
    dims = tuple(range(1, changes.dim()))
    if norm == "l0":
        return changes.ne(0).sum(dim=dims).to(changes.dtype)
    if norm == "linf":
        return changes.abs().amax(dim=dims)
    order = 1.0 if norm == "l1" else 2.0
    return cast("Tensor", torch.linalg.vector_norm(changes, order, dim=dims))


def distances(points: Tensor, inputs: Tensor, norm: Norm) -> Tensor:
    """How far `points` (n, ...) lie from `inputs` (n, ...), measured in float64: (n,)."""
    return lengths(points.double() - inputs.double(), norm)


def peaks(changes: Tensor) -> Tensor:
    """The largest absolute value of each sample of `changes` (n, ...): (n,), NaN where any is."""
    return changes.abs().amax(dim=tuple(range(1, changes.dim())))


def steepest(gradients: Tensor, norm: Literal["l1", "l2", "linf"]) -> Tensor:
    """The change of unit size that raises the loss most, to first order; zero where the gradient is zero.

    linf: the sign. l2: g / ||g||, with g scaled first, so that gradients far from one neither vanish nor overflow
    when they are squared. l1: all of it on the element of the largest slope, shared by equal ones.

    Args:
        gradients: (n, ...), of one loss a sample with respect to its input; left as it is.
        norm: "linf", "l2" or "l1".
    """
    if norm == "linf":
        return gradients.sign()
    if norm == "l1":
        signs = gradients.sign().mul_(gradients.abs() == spread(peaks(gradients), gradients))
        return signs.div_(spread(lengths(signs, "l1").clamp_(min=1.0), signs))
    tiny = torch.finfo(gradients.dtype).tiny
    scaled = gradients / spread(peaks(gradients).clamp_(min=tiny), gradients)
    return scaled.div_(spread(lengths(scaled, "l2").clamp_(min=tiny), gradients))

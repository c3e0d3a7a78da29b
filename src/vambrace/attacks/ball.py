"""The set that a fixed-radius attack may move in: an l1, l2 or linf ball around the input, inside the model's box."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from vambrace.ops import draws
from vambrace.ops.norms import steepest
from vambrace.ops.projections import ball_box, inner_box, project_l2
from vambrace.ops.projections_l1 import draw_l1, fill, movable, project_l1, sparse_signs
from vambrace.ops.rows import spread

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.rng import Streams
    from vambrace.search.rule import Origin, Tensors

__all__ = ["Ball"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ball:
    """Radius and shape; its functions take the anchors of the samples they work on.

    Attributes:
        norm: "l1", "l2" or "linf".
        eps: radius in input units.
        sparsity: l1 only: share of the elements that a step moves, equally far each; None: a step spends its length on
            the steepest elements, each as far as the box lets it, which raises a linear function most.
    """

    norm: Literal["l1", "l2", "linf"]
    eps: float
    sparsity: float | None = None

    def anchor(self, origin: Origin) -> dict[str, Tensor]:
        """What never changes: the allowed range of every element (linf), or the box and the centre (l1, l2)."""
        if self.norm == "linf":
            low, high = ball_box(origin.inputs, self.eps, origin.bounds)
            return {"low": low, "high": high}
        low, high = (end.expand_as(origin.inputs).clone() for end in inner_box(origin.bounds, origin.inputs))
        return {"centre": origin.inputs, "low": low, "high": high}

    def start(self, origin: Origin, anchor: Tensors, restart: Tensor, *, random: bool) -> Tensor:
        """First points (m, ...): the caller's or the input for restart 0 where given or not `random`, else drawn.

        Drawn points are uniform in the ball and then projected into the box, as Madry et al. 2018 do.
        """
        first = origin.inputs if origin.start is None else origin.start
        if not random:
            return self.project(anchor, first.clone())
        drawn = origin.inputs + self.noise(origin.rng.child("start"), origin.ids, restart, like=origin.inputs)
        if origin.start is not None:
            drawn = torch.where(spread(restart == 0, drawn), first, drawn)
        return self.project(anchor, drawn)

    def project(self, anchor: Tensors, points: Tensor) -> Tensor:
        """The nearest allowed points; may overwrite `points`."""
        if self.norm == "linf":
            return torch.clamp(points, anchor["low"], anchor["high"], out=points)
        project = project_l1 if self.norm == "l1" else project_l2
        return project(points, anchor["centre"], self.eps, anchor["low"], anchor["high"])

    def ascend(self, anchor: Tensors, points: Tensor, gradient: Tensor, size: float | Tensor) -> Tensor:
        """The allowed points nearest to one step of length `size`, a number or (m, 1, ..., 1), up the gradient.

        Leaves `points` as they are.
        """
        if self.norm == "l1":
            return self.project(anchor, points + self._sparse(anchor, points, gradient, size))
        direction = steepest(gradient, self.norm)
        if isinstance(size, torch.Tensor):
            return self.project(anchor, torch.addcmul(points, direction, size, out=direction))
        return self.project(anchor, torch.add(points, direction, alpha=size, out=direction))

    def noise(self, stream: Streams, ids: Tensor, step: Tensor, *, like: Tensor) -> Tensor:
        """Changes (m, ...) of the form of `like`, drawn uniformly from the ball for ids and steps, int64 (m,) each."""
        shape, dtype = tuple(like.shape[1:]), like.dtype
        if self.norm == "linf":
            return draws.uniform(stream, ids, step=step, shape=shape, low=-self.eps, high=self.eps, dtype=dtype)
        if self.norm == "l1":
            return draw_l1(stream, ids, shape=shape, step=step, dtype=dtype) * self.eps
        direction = steepest(draws.normal(stream, ids, step=step, shape=shape, dtype=dtype), "l2")
        share = draws.uniform(stream.child("radius"), ids, step=step, shape=(), dtype=torch.float64)
        radius = self.eps * share ** (1.0 / math.prod(shape))
        return direction * spread(radius, direction).to(dtype)

    def _sparse(self, anchor: Tensors, points: Tensor, gradient: Tensor, size: float | Tensor) -> Tensor:
        low, high = anchor["low"], anchor["high"]
        if self.sparsity is None:
            return fill(gradient, points, size, low, high)
        count = math.ceil(self.sparsity * math.prod(points.shape[1:]))
        return sparse_signs(movable(gradient, points, low, high), count) * size

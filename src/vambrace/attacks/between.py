"""The way from an input to a point that reaches the goal, and the search along it for the decision.

References: the binary search of Chen, Jordan, Wainwright 2020, arXiv 1904.02144, algorithms 1 and 2.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from vambrace.ops.norms import peaks
from vambrace.ops.rows import spread

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.options import Norm
    from vambrace.search.desk import Desk

__all__ = ["between", "narrow"]

_FINEST = 2.0**-20
"""Below this share of the way, single precision tells no two points apart."""


def between(inputs: Tensor, far: Tensor, share: Tensor, norm: Norm) -> Tensor:
    """The point (m, ...) at `share` (m,) of the way from `inputs` to `far`, both (m, ...).

    linf: `far` with every element brought within that share of the largest change. l2: on the straight line.
    """
    change = far - inputs
    if norm == "linf":
        most = spread(peaks(change) * share.to(change.dtype), change)
        return change.clamp_(-most, most).add_(inputs)
    return change.mul_(spread(share.to(change.dtype), change)).add_(inputs)


def narrow(desk: Desk, owner: Tensor, far: Tensor, tolerance: float) -> Tensor:
    """Go from `far` toward the input as far as the goal stays reached, by halving the way that is in question.

    A sample whose budget ends on the way keeps the nearest point it has.

    Args:
        desk: where to ask; gives the inputs and the norm.
        owner: int64 (m,), ascending, distinct: whose points these are.
        far: (m, ...), points that reach their goals; left as they are.
        tolerance: share of the way within which the decision is found, at least 2**-20.

    Returns:
        Points (m, ...) that were asked about and reached their goals.
    """
    inputs, near = desk.inputs[owner], far.clone()
    low = torch.zeros(len(owner), dtype=torch.float64, device=owner.device)
    high = torch.ones_like(low)
    for _ in range(math.ceil(-math.log2(max(tolerance, _FINEST)))):
        rows = (desk.left[owner] > 0).nonzero().squeeze(1)
        if not len(rows):
            break
        middle = (low[rows] + high[rows]) / 2
        points = between(inputs[rows], far[rows], middle, desk.norm)
        won = desk.reached(points, owner[rows])
        high[rows] = torch.where(won, middle, high[rows])
        low[rows] = torch.where(won, low[rows], middle)
        near[rows[won]] = points[won]
    return near

"""Points as 8-bit images save them: on the 256 levels of the box, and still inside the ball.

>>> import torch
>>> from vambrace.core.access import Bounds
>>> inputs = torch.tensor([[0.0, 100 / 255]])
>>> points = torch.tensor([[0.0301, 0.4]])
>>> (on_grid(points, inputs, 0.032, "linf", Bounds(0.0, 1.0)) * 255).round().tolist()
[[8.0, 102.0]]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vambrace.ops.norms import distances
from vambrace.ops.projections import ball_box, inner_box
from vambrace.ops.rows import spread

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.access import Bounds
    from vambrace.core.options import Norm

__all__ = ["LEVELS", "fitted", "on_grid"]

LEVELS = 255
"""Steps between the ends of the box."""


def on_grid(points: Tensor, inputs: Tensor, eps: float, norm: Norm, bounds: Bounds) -> Tensor:
    """The points with every value on its nearest level, or on the next one inward where that would leave the ball.

    Args:
        points: (n, ...), allowed.
        inputs: (n, ...), the centres.
        eps: radius; may be infinite.
        norm: of the ball.
        bounds: the box; its ends are levels 0 and 255.

    Returns:
        (n, ...), values `low + k (high - low) / 255` rounded once to the dtype, inward at the ends of the box where
        these are no numbers of the dtype. Inside the box; inside the ball wherever the inputs lie on levels
        themselves; where they do not, a value may have no level near enough, and the caller must measure.
    """
    low = torch.as_tensor(bounds.low, dtype=torch.float64, device=points.device)
    high = torch.as_tensor(bounds.high, dtype=torch.float64, device=points.device)
    width = (high - low) / LEVELS
    floor, ceiling = inner_box(bounds, points)

    def values(level: Tensor) -> Tensor:
        return (low + level.clamp(0, LEVELS) * width).to(points.dtype).clamp(floor, ceiling)

    def nearest(given: Tensor) -> Tensor:
        # An end that is no number of the dtype was rounded inward, perhaps by more than half a level.
        found = ((given.double() - low) / width).round()
        return torch.where(given >= ceiling, LEVELS, torch.where(given <= floor, 0, found))

    level = nearest(points)
    if norm == "linf":
        least, most = ball_box(inputs, eps, bounds)
        # One level inward where rounding of a level to the dtype would leave the ball by its last digit.
        found = values(level)
        level = torch.where(found > most, ((most.double() - low) / width).floor(), level)
        level = torch.where(found < least, ((least.double() - low) / width).ceil(), level)
        found = values(level)
        level = level - (found > most).to(level) + (found < least).to(level)
        return values(level)
    found = values(level)
    if norm == "l0":
        return found
    far = distances(found, inputs, norm) > eps
    own = (inputs.double() - low) / width
    home = nearest(inputs)
    # Toward the input, but not past its own level, which rounding puts on either side of the input: no coordinate moves
    # further than it was asked to.
    exact = (points.double() - low) / width
    nearer = torch.where(exact >= own, exact.floor().maximum(home), exact.ceil().minimum(home))
    return torch.where(spread(far, found), values(nearer), found)


def fitted(points: Tensor, inputs: Tensor, eps: float, norm: Norm, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """`on_grid`, and how far the points then are: float64 (n,), inf where they do not fit into the ball."""
    found = on_grid(points, inputs, eps, norm, bounds)
    distance = distances(found, inputs, norm)
    return found, torch.where(distance <= eps, distance, torch.inf)

"""Nearest points of a ball around the input and the box of valid inputs, rounded inward.

A change that is allowed on paper must be allowed as saved: the box of a linf ball is rounded inward once, so
that every later clamp lands inside; an l2 projection is exact up to rounding while searching, and `tighten`
moves what is handed back inward until its size, measured in float64, is at most eps.

    >>> import torch
    >>> inputs = torch.tensor([[0.1, 0.9]])
    >>> low, high = ball_box(inputs, 0.3, Bounds(0.0, 1.0))
    >>> bool(((high.double() - inputs.double()) <= 0.3).all()), low.tolist()[0][0], high.tolist()[0][1]
    (True, 0.0, 1.0)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vambrace.core.access import Bounds
from vambrace.ops.norms import distances, lengths
from vambrace.ops.rows import spread

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.options import Norm

__all__ = ["ball_box", "inner_box", "project_l2", "tighten"]

_KEEP_OFF = 1e-9
"""Relative distance kept from the sphere: far above what summing in another order changes, far below float32."""


def inner_box(bounds: Bounds | None, like: Tensor) -> tuple[Tensor, Tensor]:
    """The ends of the box as tensors that broadcast against a sample of `like`, rounded inward to its dtype."""
    low, high = (float("-inf"), float("inf")) if bounds is None else (bounds.low, bounds.high)
    low = torch.as_tensor(low, dtype=torch.float64, device=like.device)
    high = torch.as_tensor(high, dtype=torch.float64, device=like.device)
    return _round_up(low, like.dtype), -_round_up(-high, like.dtype)


def ball_box(inputs: Tensor, eps: float, bounds: Bounds | None) -> tuple[Tensor, Tensor]:
    """Smallest and largest allowed value of every element: linf ball of radius `eps` and box, rounded inward.

    Args:
        inputs: (n, ...) inside `bounds`, up to the rounding of the ends to their dtype.
        eps: radius.
        bounds: the box; None: there is none.

    Returns:
        Two tensors like `inputs`, the outermost ones (up to the last digit of float64) such that any point between
        them is at most `eps` away, measured in float64, and inside the box. Where no number of the dtype is that near,
        both are the input itself.
    """
    floor, ceiling = inner_box(bounds, inputs)
    wide = inputs.double()
    low, high = (wide - eps).to(inputs.dtype), (wide + eps).to(inputs.dtype)
    low = torch.where(torch.sub(wide, low) > eps, torch.nextafter(low, inputs), low).clamp_(min=floor)
    high = torch.where(torch.sub(high, wide) > eps, torch.nextafter(high, inputs), high).clamp_(max=ceiling)
    empty = low > high
    if bool(empty.any()):
        low = torch.where(empty, inputs, low)
        high = torch.where(empty, inputs, high)
    return low, high


def project_l2(points: Tensor, inputs: Tensor, eps: float, low: Tensor, high: Tensor) -> Tensor:
    """The nearest point, in the Euclidean sense, that is inside both the box and the l2 ball around `inputs`.

    The minimiser has the form clip(x0 + s (y - x0)) with the largest s <= 1 that fits in the ball. Its squared size
    is a concave, increasing, piecewise linear function of s squared, so that Newton's method from below ends at
    the root after finitely many steps and every iterate is feasible.

    Args:
        points: (n, ...), anywhere.
        inputs: (n, ...), the centres, inside the box.
        eps: radius.
        low: smallest allowed values, broadcasting against `points`; may be -inf.
        high: largest allowed values; may be +inf.

    Returns:
        (n, ...), inside the box, and inside the ball up to rounding.
    """
    dtype = points.dtype
    if torch.finfo(dtype).bits < 32:  # squares of half precision under- and overflow
        found = project_l2(points.float(), inputs.float(), eps, low.float(), high.float())
        return found.to(dtype).clamp(low, high)
    change = points - inputs
    clipped = points.clamp(low, high)
    if not bool((lengths(clipped - inputs, "l2") > eps).any()):
        return clipped
    squared = change.square()
    room = torch.where(change > 0, high - inputs, inputs - low).square()
    dims = tuple(range(1, points.dim()))
    tiny = torch.finfo(dtype).tiny
    scale = (eps * eps / squared.sum(dim=dims, keepdim=True).clamp_(min=tiny)).clamp_(max=1.0)
    bends = room / squared  # NaN where nothing moves and nothing may: such elements add nothing either way
    while True:
        free = bends > scale
        used = torch.where(free, 0.0, room).sum(dim=dims, keepdim=True)
        slope = torch.where(free, squared, 0.0).sum(dim=dims, keepdim=True)
        root = ((eps * eps - used).clamp_(min=0.0) / slope.clamp_(min=tiny)).clamp_(max=1.0)
        if not bool((root > scale).any()):
            break
        scale = torch.maximum(scale, root)
    return (inputs + change * scale.sqrt()).clamp(low, high)


def tighten(points: Tensor, inputs: Tensor, eps: float, norm: Norm, bounds: Bounds | None) -> tuple[Tensor, Tensor]:
    """Move points inward as little as it takes for them to be allowed as saved.

    Points that are allowed already come back unchanged, bit for bit. NaN becomes the input.

    Args:
        points: (n, ...).
        inputs: (n, ...), the centres.
        eps: radius; may be infinite.
        norm: of the ball; a point that is too far in l0 becomes the input, for there is no little inward there.
        bounds: the box; None: there is none.

    Returns:
        Points (n, ...) inside `bounds`, and their distances (n,) from `inputs` in float64, at most `eps`.
    """
    low, high = inner_box(bounds, inputs)
    points = points.clamp(low, high)
    distance = distances(points, inputs, norm)
    if not bool((distance <= eps).all()):  # asked this way round so that NaN counts as too far
        points = torch.where(points.isnan(), inputs, points)
        if norm == "linf":
            points = points.clamp(*ball_box(inputs, eps, bounds))
        elif norm != "l0":
            points = _shrink(points, inputs, eps, norm, low, high)
        # A radius at the scale of rounding leaves nothing but the input.
        near = distances(points, inputs, norm) <= eps
        points = torch.where(spread(near, points), points, inputs)
        distance = distances(points, inputs, norm)
    return points, distance


def _shrink(points: Tensor, inputs: Tensor, eps: float, norm: Norm, low: Tensor, high: Tensor) -> Tensor:
    """Points inside the box, scaled into the l1 or l2 ball where they lie outside it, and rounded toward its centre."""
    centre = inputs.clamp(low, high)  # differs from the input by at most the rounding of an end of the box
    slack = eps - lengths(centre.double() - inputs.double(), norm)
    change = points.double() - centre.double()
    size = lengths(change, norm)
    tiny = torch.finfo(torch.float64).tiny
    scale = (slack.clamp(min=0.0) / size.clamp(min=tiny)) * (1.0 - _KEEP_OFF)
    wanted = centre.double() + change * spread(scale, change)
    shrunk = wanted.to(points.dtype)
    beyond = (shrunk.double() - centre.double()).abs() > (wanted - centre.double()).abs()
    shrunk = torch.where(beyond, torch.nextafter(shrunk, centre), shrunk)
    return torch.where(spread(size > slack, points), shrunk, points)


def _round_up(values: Tensor, dtype: torch.dtype) -> Tensor:
    """The smallest number of the dtype that is not below each float64 value."""
    rounded = values.to(dtype)
    infinity = torch.full_like(rounded, float("inf"))
    return torch.where(rounded.double() < values, torch.nextafter(rounded, infinity), rounded)

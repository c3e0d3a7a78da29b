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

import functools
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from vambrace.core.access import Bounds
from vambrace.ops.knots import last_within, may_look
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
    if isinstance(low, int | float) and isinstance(high, int | float):
        return _inner_ends(float(low), float(high), like.dtype, like.device)
    low = torch.as_tensor(low, dtype=torch.float64, device=like.device)
    high = torch.as_tensor(high, dtype=torch.float64, device=like.device)
    return _round_up(low, like.dtype), -_round_up(-high, like.dtype)


@functools.lru_cache(maxsize=64)
def _inner_ends(low: float, high: float, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """`inner_box` of numbers, which every search asks for again and again; not to be written to."""
    with torch.inference_mode(False):
        ends = torch.tensor((low, -high), dtype=torch.float64, device=device)
        low_end, minus_high = _round_up(ends, dtype)
        return low_end, -minus_high


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
    if not may_look(inputs) or bool(empty.any()):
        low = torch.where(empty, inputs, low)
        high = torch.where(empty, inputs, high)
    return low, high


def project_l2(
    points: Tensor, inputs: Tensor, eps: float, low: Tensor, high: Tensor, *, looks: bool | None = None
) -> Tensor:
    """The nearest point, in the Euclidean sense, that is inside both the box and the l2 ball around `inputs`.

    The minimiser has the form clip(x0 + s (y - x0)) with the largest s <= 1 that fits in the ball. Its squared size
    is a concave, increasing, piecewise linear function of s squared. Where the host may look, Newton's method from
    below ends at the root after finitely many steps; elsewhere the piece is found first (`ops.knots`), and Newton's
    method takes one step. Every iterate is feasible.

    Args:
        points: (n, ...), anywhere.
        inputs: (n, ...), the centres, inside the box.
        eps: radius.
        low: smallest allowed values, broadcasting against `points`; may be -inf.
        high: largest allowed values; may be +inf.
        looks: whether the host looks at values on the way; None: on CPU only, where that is free.

    Returns:
        (n, ...), inside the box, and inside the ball up to rounding.
    """
    dtype, looks = points.dtype, may_look(points) if looks is None else looks
    if torch.finfo(dtype).bits < 32:  # squares of half precision under- and overflow
        found = project_l2(points.float(), inputs.float(), eps, low.float(), high.float(), looks=looks)
        return found.to(dtype).clamp(low, high)
    change = points - inputs
    clipped = points.clamp(low, high)
    large = lengths(clipped - inputs, "l2") > eps
    if looks and not bool(large.any()):
        return clipped
    room = torch.where(change > 0, high - inputs, inputs - low).square()
    share = _share(change.square(), room, eps * eps, looks=looks)
    found = (inputs + change * share.sqrt()).clamp(low, high)
    return found if looks and bool(large.all()) else torch.where(spread(large, found), found, clipped)


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


def _share(squared: Tensor, room: Tensor, most: float, *, looks: bool) -> Tensor:
    """The largest share t <= 1 of each sample of `squared`, cut at `room`, that adds up to `most`: (n, 1, ..., 1)."""
    dims, tiny = tuple(range(1, squared.dim())), torch.finfo(squared.dtype).tiny
    bends = room / squared  # NaN where nothing moves and nothing may: such elements add nothing either way

    def onward(share: Tensor) -> Tensor:
        free = bends > share
        used = torch.where(free, 0.0, room).sum(dim=dims, keepdim=True)
        slope = torch.where(free, squared, 0.0).sum(dim=dims, keepdim=True)
        return ((most - used).clamp_(min=0.0) / slope.clamp_(min=tiny)).clamp_(max=1.0)

    def within(share: Tensor) -> Tensor:
        return torch.minimum(squared * spread(share, squared), room).sum(dim=dims).unsqueeze(1) <= most

    if not looks:
        knots = F.pad(bends.flatten(1).nan_to_num(nan=1.0).clamp_(max=1.0), (1, 0)).sort(dim=1).values
        share = spread(last_within(knots, within)[0], squared)
        return torch.maximum(share, onward(share))
    share = (most / squared.sum(dim=dims, keepdim=True).clamp_(min=tiny)).clamp_(max=1.0)
    while True:
        root = onward(share)
        if not bool((root > share).any()):
            return share
        share = torch.maximum(share, root)


def _round_up(values: Tensor, dtype: torch.dtype) -> Tensor:
    """The smallest number of the dtype that is not below each float64 value."""
    rounded = values.to(dtype)
    infinity = torch.full_like(rounded, float("inf"))
    return torch.where(rounded.double() < values, torch.nextafter(rounded, infinity), rounded)

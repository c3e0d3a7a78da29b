"""The l1 ball inside the box: nearest points, steps that spend their length on few elements, and uniform draws.

In l1 the box matters more than elsewhere: a ball of radius 10 around an image allows one pixel a change of 10, the box
allows it 1. Projecting on the ball and clipping afterwards wastes most of the radius, so the projection here is the
exact one on the intersection.

    >>> import torch
    >>> project_l1(torch.tensor([[3.0, 0.5, 0.0]]), torch.zeros(1, 3), 1.25, torch.tensor(0.0), torch.tensor(1.0))
    tensor([[1.0000, 0.2500, 0.0000]])

References: Croce & Hein 2021, "Mind the box", arXiv 2103.01208, sections 2 and 3; Tramer & Boneh 2019, arXiv
1904.13000, section 4 (sparse steps).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from vambrace.ops import draws
from vambrace.ops.knots import last_within, may_look
from vambrace.ops.norms import lengths
from vambrace.ops.rows import spread

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.rng import Streams

__all__ = ["draw_l1", "fill", "movable", "project_l1", "sparse_signs"]

_MOST_TRIES = 200
"""Halving alone ends after some 70; the rest is slack."""


def project_l1(
    points: Tensor, inputs: Tensor, eps: float | Tensor, low: Tensor, high: Tensor, *, looks: bool | None = None
) -> Tensor:
    """The nearest point, in the Euclidean sense, that is inside both the box and the l1 ball around `inputs`.

    The minimiser moves every element of the change towards zero by one amount a sample, stops at zero, and clips to
    the box. Its size is a falling, piecewise linear function of that amount, neither convex nor concave. Where the host
    may look, Newton's method runs between two ends that close in on the root, and halves where it would leave them;
    elsewhere the piece is found first (`ops.knots`).

    Args:
        points: (n, ...), anywhere.
        inputs: (n, ...), the centres, inside the box.
        eps: radius, a number or (n,).
        low: smallest allowed values, broadcasting against `points`; may be -inf.
        high: largest allowed values; may be +inf.
        looks: whether the host looks at values on the way; None: on CPU only, where that is free.

    Returns:
        (n, ...), inside the box, and inside the ball up to rounding.
    """
    dtype, looks = points.dtype, may_look(points) if looks is None else looks
    if torch.finfo(dtype).bits < 32:  # sums of half precision lose what they add
        found = project_l1(points.float(), inputs.float(), eps, low.float(), high.float(), looks=looks)
        return found.to(dtype).clamp(low, high)
    clipped = points.clamp(low, high)
    large = lengths(clipped - inputs, "l1") > eps
    if looks and not bool(large.any()):
        return clipped
    change = points - inputs
    room = torch.where(change > 0, high - inputs, inputs - low).clamp_(min=0.0).flatten(1)
    size = change.abs().flatten(1)
    kept = _kept(size, room, eps, large) if looks else _kept_by_knots(size, room, eps)
    found = torch.addcmul(inputs, change.sign(), kept.reshape(change.shape)).clamp_(low, high)
    return found if looks and bool(large.all()) else torch.where(spread(large, found), found, clipped)


def movable(gradients: Tensor, points: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Gradients (n, ...) with zeros where the point stands at the end of the box that its gradient points to."""
    stuck = torch.where(gradients > 0, points >= high, points <= low)
    return gradients.masked_fill(stuck, 0.0)


def sparse_signs(gradients: Tensor, counts: int | Tensor) -> Tensor:
    """Signs of each sample's `counts` steepest elements, a number or int64 (n,), over their number; zero elsewhere.

    Equally steep elements are taken together. An element without slope is never among them.
    """
    steep = gradients.abs().flatten(1)
    if isinstance(counts, torch.Tensor):
        counts = counts.clamp(min=1, max=steep.shape[1])
        # Where asking for the largest count would make the host wait, all are sorted.
        most = int(counts.max()) if steep.device.type == "cpu" else steep.shape[1]
        least = steep.topk(most, dim=1).values.gather(1, counts.unsqueeze(1) - 1)
    else:
        least = steep.topk(min(counts, steep.shape[1]), dim=1).values.amin(dim=1, keepdim=True)
    signs = gradients.sign().mul_((steep >= least).reshape(gradients.shape))
    return signs.div_(spread(lengths(signs, "l1").clamp_(min=1.0), signs))


def fill(gradients: Tensor, points: Tensor, size: float | Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The change of l1 length `size` at most that raises a linear function most and leaves `points` inside the box.

    The steepest element goes as far as the box lets it, then the next one, until the length is spent.

    Args:
        gradients: (n, ...), of the function.
        points: (n, ...), inside the box.
        size: a number, or (n, 1, ..., 1).
        low: smallest allowed values, broadcasting against `points`; may be -inf.
        high: largest allowed values; may be +inf.
    """
    flat = gradients.flatten(1)
    room = torch.where(gradients > 0, high - points, points - low).clamp_(min=0.0).flatten(1)
    length = size.reshape(-1, 1) if isinstance(size, torch.Tensor) else size
    room = room.clamp_(max=length)  # an unbounded room would leave no number to subtract
    order = flat.abs().sort(dim=1, descending=True, stable=True).indices
    sorted_room = room.gather(1, order)
    before = sorted_room.cumsum(dim=1).sub_(sorted_room)
    spent = torch.minimum((length - before).clamp_(min=0.0), sorted_room)
    return torch.zeros_like(flat).scatter_(1, order, spent).mul_(flat.sign()).reshape(gradients.shape)


def draw_l1(stream: Streams, ids: Tensor, *, shape: tuple[int, ...], step: int | Tensor, dtype: torch.dtype) -> Tensor:
    """Changes (n, *shape), uniform in the l1 ball of radius 1: signs, and the first of d + 1 shares that add up to 1.

    Args:
        stream: what is drawn; its child "side" gives the signs.
        ids: int64 (n,), for whom.
        shape: of one sample, d elements.
        step: how many-eth time.
        dtype: of the result.
    """
    features = math.prod(shape)
    wide = dtype if torch.finfo(dtype).bits >= 32 else torch.float32
    waits = draws.uniform(stream, ids, step=step, shape=(features + 1,), dtype=wide).neg_().log1p_().neg_()
    shares = waits[:, :features] / waits.sum(dim=1, keepdim=True)
    sides = draws.signs(stream.child("side"), ids, step=step, shape=(features,), dtype=wide)
    return shares.mul_(sides).reshape(-1, *shape).to(dtype)


def _kept(size: Tensor, room: Tensor, eps: float | Tensor, large: Tensor) -> Tensor:
    """How much of each element's `size` (n, d) is left, at most `room`, so that `large` rows add up to eps."""
    kept = torch.minimum(size, room)
    rows = large.nonzero().squeeze(1)
    size, room = size[rows], room[rows]
    eps = (eps[rows] if isinstance(eps, torch.Tensor) else torch.full_like(size[:, 0], eps)).unsqueeze(1)
    rounding = torch.finfo(size.dtype).eps
    below, above = torch.zeros_like(size[:, :1]), size.amax(dim=1, keepdim=True)
    most = kept[rows].sum(dim=1, keepdim=True) - eps  # what is too much at the lower end
    least = -eps  # and, less than nothing, at the upper one
    cut = below
    for attempt in range(_MOST_TRIES):
        left = torch.minimum((size - cut).clamp_(min=0.0), room)
        excess = left.sum(dim=1, keepdim=True) - eps
        over = excess > 0
        below, above = torch.where(over, cut, below), torch.where(over, above, cut)
        most, least = torch.where(over, excess, most), torch.where(over, least, excess)
        still = (excess.abs() > 16 * rounding * eps) & (above - below > rounding * above)
        waiting = int(still.sum())
        if 2 * waiting <= len(rows):
            kept[rows] = left
            rest = still.squeeze(1).nonzero().squeeze(1)
            rows, size, room, left = rows[rest], size[rest], room[rest], left[rest]
            below, above, most, least = below[rest], above[rest], most[rest], least[rest]
            cut, excess, still, eps = cut[rest], excess[rest], still[rest], eps[rest]
            if not waiting:
                break
        free = ((left > 0) & (left < room)).sum(dim=1, keepdim=True)
        root = cut + excess / free.clamp_(min=1)
        chord = below + most * (above - below) / (most - least)
        following = torch.where((root > below) & (root < above), root, chord)
        if attempt % 4 == 3:  # three in a row may creep
            following = (below + above) / 2
        cut = torch.where(still, following, cut)
    else:
        kept[rows] = torch.minimum((size - above).clamp_(min=0.0), room)
    return kept


def _kept_by_knots(size: Tensor, room: Tensor, eps: float | Tensor) -> Tensor:
    """As `_kept`, for rows that are all `large`, without a look of the host."""
    most = eps.unsqueeze(1) if isinstance(eps, torch.Tensor) else eps

    def left(cut: Tensor) -> Tensor:
        return torch.minimum((size - cut).clamp_(min=0.0), room)

    # An element begins to give way where it has sunk to its room, and has given all at its size.
    knots = F.pad(torch.cat((size, (size - room).clamp_(min=0.0)), dim=1), (1, 0)).sort(dim=1).values
    first, following = last_within(knots, lambda cut: left(cut).sum(dim=1, keepdim=True) >= most)
    # Between the two the size falls in a straight line; where it hardly falls, any point will do.
    here, there = (left(cut).sum(dim=1, keepdim=True) for cut in (first, following))
    share = (here - most) / (here - there).clamp_(min=torch.finfo(size.dtype).tiny)
    return left(torch.lerp(first, following, share.clamp_(0.0, 1.0)))

"""Random windows on images and lines, one for each sample, and the bump that random search adds inside one.

Samples are seen as channels of height and width: an image as it is, any other sample as a line, of height 1; here they
come as flat channels (n, c, height * width). A window is a rectangle over all channels, told by the place of its first
element in a flat channel and by its side: height and width, on a line the width alone; of side 0 it is empty. So every
sample has a window of its own, or several, each of which gives another point. On CPU only what lies inside is touched;
elsewhere masks are compared.

    >>> import torch
    >>> frame((3, 28, 28)), frame((20,)), frame((6, 50))
    ((3, 28, 28), (1, 1, 20), (6, 1, 50))
    >>> points, high = torch.zeros(1, 1, 8), torch.full((1, 1, 8), 0.5)
    >>> first, side = torch.tensor([[5]]), torch.tensor([1])
    >>> put_ends(points, -high, high, first=first, side=side, upper=torch.tensor([[True]]), width=4).tolist()
    [[[0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0]]]

Reference: Andriushchenko et al. 2020, arXiv 1912.00049, section 3.3 (the bump for l2, equation 2; its
halves are balanced as in the authors' code). Beyond it, what the box cuts off a bump is made up for inside its window.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, cast

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

__all__ = ["bump", "frame", "move_bumps", "put_ends", "square_side"]


_FILLS = 2
"""How often a bump is stretched for what the box cuts off; the third time would add next to nothing."""
_NEXT_TO_NOTHING = 1e-4
_ROUNDING = 1e-6
"""Of a radius, or of its square: what sums in single precision do not tell from nothing."""


def frame(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width of a sample of `shape`: (c, h, w) is an image, (d,) a line, (c, ...) lines."""
    if len(shape) == 3:
        return (shape[0], shape[1], shape[2])
    return (1, 1, shape[0]) if len(shape) == 1 else (shape[0], 1, math.prod(shape[1:]))


def square_side(share: float, height: int, width: int) -> int:
    """The side of the square that covers a share of a height by width image, or of a line; rounded, at least 1."""
    side = share * width if height == 1 else math.sqrt(share * height * width)
    return max(1, round(side))


def put_ends(
    points: Tensor, low: Tensor, high: Tensor, *, first: Tensor, side: Tensor, upper: Tensor, width: int
) -> Tensor:
    """Points (n, c, l) with every channel's window at one end of its range; at the other ends if nothing changes.

    Args:
        points: left as they are.
        low: smallest values, like `points`.
        high: largest values, like `points`.
        first: int64 (n * k, 1), the windows' first places, k in a row for each sample; they lie inside the image.
        side: int64 (n * k,), their sides.
        upper: bool (n * k, c), whether it is the upper end.
        width: of the images.

    Returns:
        (n * k, c, l), a point for each window.
    """
    if _on_host(points):
        work = functools.partial(_ends_written, width=width)
        return _by_side(work, side, (points, low, high), (first, upper))
    points, low, high = (_for_each(side, given) for given in (points, low, high))
    inside, wanted = _mask(first[:, 0], side, points.shape[2] // width, width), upper.unsqueeze(2)
    values = torch.where(inside, torch.where(wanted, high, low), points)
    idle = (values == points).all(dim=(1, 2), keepdim=True)
    return torch.where(inside & idle, torch.where(wanted, low, high), values)


def move_bumps(
    points: Tensor,
    centre: Tensor,
    low: Tensor,
    high: Tensor,
    *,
    first: Tensor,
    side: Tensor,
    kinds: Tensor,
    width: int,
    eps: float,
    power: int,
) -> Tensor:
    """Points (n, c, l) with one more bump each, paid for by a window that goes back to the centre.

    The bump is added to what its window holds already, both of length 1, and the sum is stretched to the length of
    both windows together and of what the ball of radius `eps` has left, an equal part for each channel. What the box
    then cuts off is made up for by the window's other elements, twice, and never beyond that length. Elements outside
    may move by rounding.

    Args:
        points: in the ball and in the box; left as they are.
        centre: of the ball, like `points`.
        low: smallest values, like `points`, or one for each sample, (n, 1, 1).
        high: largest values, of the same form.
        first: int64 (n * k, 2), first places of the window that gets the bump and of that which is given up; k pairs in
            a row for each sample.
        side: int64 (n * k,), of both windows.
        kinds: int64 (n * k, c), of the bumps: 1 where the hill comes first, plus 2 where hill and valley lie one above
            the other, as those of all channels of a sample do or none.
        width: of the images.
        eps: radius.
        power: 1 for l1, 2 for l2.

    Returns:
        (n * k, c, l), a point for each pair of windows.
    """
    if torch.finfo(points.dtype).bits < 32:  # half precision squares lengths above 256 to infinity
        wide = (given.float() for given in (points, centre, low, high))
        found = move_bumps(*wide, first=first, side=side, kinds=kinds, width=width, eps=eps, power=power)
        return found.to(points.dtype)
    if _on_host(points):
        work = functools.partial(_bumps_written, width=width, eps=eps, power=power)
        return _by_side(work, side, (points, centre, low, high), (first, kinds))
    points, centre, low, high = (_for_each(side, given) for given in (points, centre, low, high))
    change, height = points - centre, points.shape[2] // width
    gains, gives = (_mask(each, side, height, width) for each in first.unbind(dim=1))
    hill = bump(first[:, 0], side, kinds[:, 0] >= 2, height=height, width=width, power=power, dtype=change.dtype)
    hills = hill.flatten(1).unsqueeze(1) * (kinds % 2 * 2 - 1).unsqueeze(2)
    old, rest = torch.where(gains, change, 0.0), torch.where(gains | gives, 0.0, change)
    before = None if points.shape[1] == 1 else _powers(change, power)
    length = _room(before, _powers(rest, power), eps, power)
    new = _bumped(hills, old, length, low - centre, high - centre, eps, power)
    moved = torch.where(gains, new, rest).add_(centre)
    return torch.where((side > 0)[:, None, None], torch.clamp(moved, low, high), points)


def bump(
    first: Tensor, side: Tensor, upright: Tensor, *, height: int, width: int, power: int, dtype: torch.dtype
) -> Tensor:
    """A hill and a valley side by side in each sample's window, zero elsewhere: (n, height, width), of length 1.

    Both are equally long in the norm. Heights fall from the middle of each half as the sums of 1/j**2 from the distance
    on, counted in steps of a king.

    Args:
        first: int64 (n,), the windows' first places.
        side: int64 (n,); the windows are cut to the image where it is smaller.
        upright: bool (n,), whether the halves lie one above the other; on a line they never do.
        height: of the image; 1 for a line.
        width: of the image.
        power: 1: lengths are those of l1; 2: of l2.
        dtype: of the result, float32 or wider.
    """
    tall, wide = side.clamp(max=height), side.clamp(max=width)
    stacked = upright & (height > 1)
    rows, row_sign = _hill(first // width, tall, stacked, height)
    columns, column_sign = _hill(first % width, wide, ~stacked, width)
    sums = _sums(max(height, width) + 2, dtype, first.device)
    base = (side // 2 + 1).clamp(max=len(sums) - 1)
    # The sum grows with the distance, so that of the larger distance is the larger sum.
    rows, columns = (sums[torch.minimum(each, base.unsqueeze(1))] for each in (rows, columns))
    found = sums[base].reshape(-1, 1, 1) - torch.maximum(rows.unsqueeze(2), columns.unsqueeze(1))
    found = found.mul_(row_sign.unsqueeze(2)).mul_(column_sign.unsqueeze(1))
    return _unit(_unit(found.clamp(min=0.0), power) + _unit(found.clamp(max=0.0), power), power)


def _on_host(tensor: Tensor) -> bool:
    """Whether a look at the sides is free; elsewhere it makes the host wait, and masks are the better way."""
    return tensor.device.type == "cpu"


def _for_each(windows: Tensor, samples: Tensor) -> Tensor:
    """Samples (n, ...) once for each of their windows (n * k, ...): themselves, or copies where there are several."""
    rows, count = samples.shape[0], windows.shape[0]
    return samples if count == rows else samples.index_select(0, _owners(rows, count // rows, samples.device))


def _by_side(
    work: Callable[..., Tensor], side: Tensor, samples: tuple[Tensor, ...], windows: tuple[Tensor, ...]
) -> Tensor:
    """What `work` makes of a side and the tensors of samples (n, ...) and windows (n * k, ...), each side by itself.

    So every window costs what it asks for, however large the others are. The first of the samples' tensors are the
    points, which an empty window leaves as they are.
    """
    sides = set(cast("list[int]", side.tolist()))
    if len(sides) == 1 and 0 not in sides:
        return work(*sides, *samples, *windows)
    count = len(side) // max(1, len(samples[0]))
    found = samples[0].repeat_interleave(count, dim=0)
    for each in sides - {0}:
        rows = (side == each).nonzero().squeeze(1)
        owners = rows // count
        given = (
            *(tensor.index_select(0, owners) for tensor in samples),
            *(tensor.index_select(0, rows) for tensor in windows),
        )
        found.index_copy_(0, rows, work(each, *given))
    return found


def _ends_written(
    side: int, points: Tensor, low: Tensor, high: Tensor, first: Tensor, upper: Tensor, *, width: int
) -> Tensor:
    """`put_ends` for windows of one side."""
    places = _places_of(first.view(-1), side, points, width)
    wanted = _by_sample(upper, points).unsqueeze(-1)
    now, least, most = (_at(each, places) for each in (points, low, high))
    idle = (torch.where(wanted, most, least) == now).all(dim=(1, -1), keepdim=True)
    values = torch.where(wanted ^ idle, most, least)
    if places.dim() == 3:
        return points.scatter(2, places, values)
    found = _for_each(first, points)
    _by_sample(found, points).scatter_(3, places, values)
    return found


def _bumps_written(
    side: int,
    points: Tensor,
    centre: Tensor,
    low: Tensor,
    high: Tensor,
    first: Tensor,
    kinds: Tensor,
    *,
    width: int,
    eps: float,
    power: int,
) -> Tensor:
    """`move_bumps` for windows of one side."""
    gains, gives = (_places_of(first.select(1, place), side, points, width) for place in (0, 1))
    change = points - centre
    before = None if change.shape[1] == 1 else _beside(_powers(change, power), gains)
    old, middle = _at(change, gains), _at(centre, gains)
    least, most = (_at(each, gains) if each.shape == points.shape else _beside(each, gains) for each in (low, high))
    moved = _for_each(first, change)
    rest, nothing = _by_sample(moved, points), old - old  # to write a number takes five times as long
    rest.scatter_(-1, gains, nothing).scatter_(-1, gives, nothing)
    length = _room(before, _powers(rest, power), eps, power)
    hills = _hills(side, 1 if points.shape[2] == width else side, power, points.dtype)
    hills = hills.index_select(0, _by_sample(kinds, points).reshape(-1)).view(old.shape)
    rest.scatter_(-1, gains, _bumped(hills, old, length, least - middle, most - middle, eps, power))
    rest.add_(_beside(centre, gains))
    torch.minimum(rest, _beside(high, gains), out=rest)  # clamping to one value a sample takes five times as long
    torch.maximum(rest, _beside(low, gains), out=rest)
    return moved


def _places_of(first: Tensor, side: int, like: Tensor, width: int) -> Tensor:
    """The places of the windows that begin at `first` (n * k,), by the samples `like` (n, c, l): int64 (n, c, k, e).

    Here and below: where every sample has one window, there is no k.
    """
    rows, channels, length = like.shape
    begin = first.view(rows, 1, 1) if first.shape[0] == rows else first.view(rows, 1, -1, 1)
    places = begin + _square(side, 1 if length == width else side, width)
    return places if channels == 1 else places.expand(-1, channels, *places.shape[2:])


def _at(samples: Tensor, places: Tensor) -> Tensor:
    """What lies at places (n, c, k, e) of samples (n, c, l)."""
    if places.dim() == 3:
        return samples.gather(2, places)
    return samples.gather(2, places.view(*samples.shape[:2], -1)).view(places.shape)


def _beside(samples: Tensor, places: Tensor) -> Tensor:
    """Samples (n, c, l) as they broadcast against what belongs to windows, (n, c, k, l), like `places`."""
    return samples if places.dim() == 3 else samples.unsqueeze(2)


def _by_sample(values: Tensor, like: Tensor) -> Tensor:
    """A view of what windows (n * k, c, ...) have, by the samples `like` (n, c, l): (n, c, k, ...)."""
    rows = like.shape[0]
    return values if values.shape[0] == rows else values.view(rows, -1, *values.shape[1:]).transpose(1, 2)


@functools.lru_cache(maxsize=64)
def _square(side: int, rows: int, width: int) -> Tensor:
    """The places of a window in the upper left corner, row by row."""
    return (torch.arange(rows).unsqueeze(1) * width + torch.arange(side)).flatten()


@functools.lru_cache(maxsize=64)
def _hills(side: int, rows: int, power: int, dtype: torch.dtype) -> Tensor:
    """The bumps that fill a window, by kind (see `move_bumps`): (4, elements)."""
    kind = torch.arange(4)
    found = bump(kind * 0, kind * 0 + side, kind >= 2, height=rows, width=side, power=power, dtype=dtype)
    return found.flatten(1) * (kind % 2 * 2 - 1).unsqueeze(1)


def _mask(first: Tensor, side: Tensor, height: int, width: int) -> Tensor:
    """Which elements lie in the windows: bool (n, 1, height * width)."""
    across = _span(first % width, side, width)
    if height == 1:
        return across.unsqueeze(1)
    return (_span(first // width, side, height).unsqueeze(2) & across.unsqueeze(1)).view(len(first), 1, -1)


def _span(first: Tensor, count: Tensor, length: int) -> Tensor:
    place = _line(length, first.device) - first.unsqueeze(1)
    return (place >= 0) & (place < count.unsqueeze(1))


def _room(before: Tensor | None, after: Tensor, eps: float, power: int) -> Tensor:
    """What the new windows may be long, in each channel: (n, c, 1).

    Args:
        before: powers of the change as it was, (n, c, 1); None for a single channel, which gets all that is left.
        after: those of the change without both windows.
        eps: radius.
        power: 1 for l1, 2 for l2.
    """
    if before is None:
        free = _number(eps**power, after.dtype, after.device) - after
    else:
        free = (eps**power - before.sum(dim=1, keepdim=True)).clamp_(min=0.0).div(before.shape[1]) + before - after
    free = torch.threshold_(free, _ROUNDING * eps**power, 0.0)
    return free if power == 1 else free.sqrt_()


def _bumped(hills: Tensor, old: Tensor, length: Tensor, least: Tensor, most: Tensor, eps: float, power: int) -> Tensor:
    """The sum of bumps (n, c, l) of length 1 and of what was there, like them, made `length` (n, c, 1) long.

    Then it is stretched until what of it lies between `least` and `most` is about as long: what is inside grows by at
    most as much, so that the length is not exceeded. What next to nothing is left of, there or in the sum, is rounding,
    which must not be blown up.
    """
    floor = max(_NEXT_TO_NOTHING * eps, torch.finfo(hills.dtype).tiny)
    both = torch.addcdiv(hills, old, _lengths(old, power).clamp_(min=floor))
    own = _lengths(both, power)
    scale = length / own.clamp(min=_NEXT_TO_NOTHING)
    both.mul_(scale)
    wanted = own.mul_(scale)
    for _ in range(_FILLS):
        inside = _lengths(torch.clamp(both, least, most), power)
        both.mul_((wanted / inside.clamp_(min=floor)).clamp_(min=1.0))
    return both


def _powers(changes: Tensor, power: int) -> Tensor:
    """The sum of |x| or of x squared over each channel (n, c, l): (n, c, 1)."""
    found = _lengths(changes, power)
    return found if power == 1 else found.mul_(found)


def _lengths(changes: Tensor, power: int) -> Tensor:
    """The l1 or l2 norm of each channel (n, c, l): (n, c, 1)."""
    if power == 1:
        return changes.abs().sum(dim=-1, keepdim=True)  # a third of the time that the norm takes
    return cast("Tensor", torch.linalg.vector_norm(changes, power, dim=-1, keepdim=True))


def _unit(changes: Tensor, power: int) -> Tensor:
    """Each image (n, h, w) scaled to length 1; zero where it is zero."""
    length = cast("Tensor", torch.linalg.vector_norm(changes, power, dim=(1, 2), keepdim=True))
    return changes / length.clamp_(min=torch.finfo(changes.dtype).tiny)


def _hill(first: Tensor, count: Tensor, halved: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Along one side: distances from the middle, very large outside of the window, and signs, both (n, length)."""
    place = _line(length, first.device) - first.unsqueeze(1)
    count = count.unsqueeze(1)
    half = torch.where(halved.unsqueeze(1), count // 2, 0)
    second = place >= half
    middle = torch.where(second, half + (count - half) // 2, half // 2)
    far = torch.where((place >= 0) & (place < count), (place - middle).abs(), 1 << 30)
    return far, torch.where(second & halved.unsqueeze(1), -1.0, 1.0)


@functools.lru_cache(maxsize=64)
def _line(length: int, device: torch.device) -> Tensor:
    return torch.arange(length, device=device)


@functools.lru_cache(maxsize=64)
def _owners(rows: int, count: int, device: torch.device) -> Tensor:
    """The sample of each window, where each has `count` in a row."""
    return torch.arange(rows, device=device).repeat_interleave(count)


@functools.lru_cache(maxsize=64)
def _number(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A number as a tensor, which is faster to compute with where it occurs in every step."""
    return torch.tensor(value, dtype=dtype, device=device)


@functools.lru_cache(maxsize=16)
def _sums(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """0, 1, 1 + 1/4, 1 + 1/4 + 1/9 and so on, `count` of them."""
    terms = torch.arange(1, count, dtype=torch.float64, device=device).square().reciprocal().cumsum(0)
    return torch.cat((terms.new_zeros(1), terms)).to(dtype)

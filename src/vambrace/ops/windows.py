"""Random windows on images and lines, one for each sample, and the bump that random search adds inside one.

Samples are seen as channels of height and width: an image as it is, any other sample as a line, of height 1. A window
is a rectangle over all channels; what lies in which is told by one mask of rows and one of columns, so that every
sample has a window of its own size and place at the price of a comparison. On CPU only what lies inside is touched.

    >>> import torch
    >>> frame((3, 28, 28)), frame((20,)), frame((6, 50))
    ((3, 28, 28), (1, 1, 20), (6, 1, 50))
    >>> one = torch.tensor([1])
    >>> points, high = torch.zeros(1, 1, 2, 4), torch.full((1, 1, 2, 4), 0.5)
    >>> put_ends(points, -high, high, Windows(one, one, one), torch.tensor([[True]]))[0, 0].tolist()
    [[0.0, 0.0, 0.0, 0.0], [0.0, 0.5, 0.0, 0.0]]

Reference: Andriushchenko et al. 2020, arXiv 1912.00049, section 3.3 (the bump for l2, equation 2; its
halves are balanced as in the authors' code).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, cast

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Windows", "bump", "cells", "frame", "move_bumps", "put_cells", "put_ends", "square_side"]


_NEXT_TO_NOTHING = 1e-4
_TABLED = 16
"""Bumps up to this side are looked up on the host."""


class Windows(NamedTuple):
    """One window a sample, int64 (n,) each."""

    top: Tensor
    """First row."""
    left: Tensor
    """First column."""
    side: Tensor
    """Height and width; on a line the width alone; 0: the window is empty."""


def frame(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width of a sample of `shape`: (c, h, w) is an image, (d,) a line, (c, ...) lines."""
    if len(shape) == 3:
        return (shape[0], shape[1], shape[2])
    return (1, 1, shape[0]) if len(shape) == 1 else (shape[0], 1, math.prod(shape[1:]))


def square_side(share: float, height: int, width: int) -> int:
    """The side of the square that covers a share of a height by width image, or of a line; rounded, at least 1."""
    side = share * width if height == 1 else math.sqrt(share * height * width)
    return max(1, round(side))


def put_ends(points: Tensor, low: Tensor, high: Tensor, windows: Windows, upper: Tensor) -> Tensor:
    """Points (n, c, h, w) with every channel's window at one end of its range; at the other ends if nothing changes.

    Args:
        points: left as they are.
        low: smallest values, like `points`.
        high: largest values, like `points`.
        windows: inside the image.
        upper: bool (n, c), whether it is the upper end.
    """
    if not _on_host(points):
        inside, wanted = _mask(windows, points), upper[:, :, None, None]
        values = torch.where(inside, torch.where(wanted, high, low), points)
        idle = (values == points).flatten(1).all(dim=1)[:, None, None, None]
        return torch.where(inside & idle, torch.where(wanted, low, high), values)
    grid = _grid(windows.side, (points.shape[2], points.shape[3]))
    if grid is None:
        return points.clone()
    found = put_cells(points, low, high, _patch(grid, windows).index.squeeze(1), upper)
    return torch.where(windows.side.reshape(-1, 1, 1, 1) > 0, found, points) if grid.some_empty else found


def cells(windows: Windows, *, height: int, width: int, most: int) -> Tensor:
    """The elements of windows of sides 1 to `most` as places in the flat image, some named again: int64 (n, cells)."""
    grid = _Grid(windows.side, _offset(windows.side, most), most, False, (height, width))
    return _patch(grid, windows).index.squeeze(1)


def put_cells(points: Tensor, low: Tensor, high: Tensor, places: Tensor, upper: Tensor) -> Tensor:
    """As `put_ends`, for windows given as `cells`, int64 (n, cells); quick where they are few."""
    form = (*points.shape[:2], -1)
    found = points.clone()
    flat, index = found.view(form), places.unsqueeze(1).expand(*form)
    least, most = low.view(form).gather(2, index), high.view(form).gather(2, index)
    wanted = upper.unsqueeze(2)
    idle = (torch.where(wanted, most, least) == flat.gather(2, index)).flatten(1).all(dim=1)
    flat.scatter_(2, index, torch.where(wanted ^ idle.reshape(-1, 1, 1), most, least))
    return found


def move_bumps(
    points: Tensor,
    centre: Tensor,
    *,
    gains: Windows,
    gives: Windows,
    upright: Tensor,
    colours: Tensor,
    eps: float,
    power: int,
    low: Tensor,
    high: Tensor,
) -> Tensor:
    """Points (n, c, h, w) with one more bump each, paid for by a window that goes back to the centre.

    The bump is added to what the window `gains` holds already, both of length 1, and the sum is stretched to the length
    of both windows together and of what the ball of radius `eps` has left, an equal part for each channel.

    Args:
        points: left as they are.
        centre: of the ball, like `points`.
        gains: where the bump goes.
        gives: what is given up, of the same sides.
        upright: bool (n,), whether hill and valley lie one above the other.
        colours: bool (n, c), whether the hill comes first.
        eps: radius.
        power: 1 for l1, 2 for l2.
        low: smallest values, like `points`.
        high: largest values, like `points`.
    """
    change = points - centre
    channels, height, width = points.shape[1:]
    used = _powers(change, power).sum(dim=1, keepdim=True)
    unused = (eps**power - used).clamp_(min=0.0) / channels
    signs = torch.where(colours, 1.0, -1.0)[:, :, None, None].to(change.dtype)
    if not _on_host(points):
        inside, left = _mask(gains, points), _mask(gives, points)
        hill = bump(gains, upright, height=height, width=width, power=power, dtype=change.dtype).unsqueeze(1)
        old, spare = torch.where(inside, change, 0.0), torch.where(inside | left, change, 0.0)
        new = _stretched(hill * signs, old, _powers(spare, power) + unused, eps, power)
        moved = torch.where(inside, centre + new, torch.where(left, centre, points))
        return moved.clamp_(low, high)
    found = points.clone()
    grid = _grid(gains.side, (height, width))
    if grid is None:
        return found
    patch, other = _patch(grid, gains), _patch(grid, gives)
    hill = _hills(grid, upright, power, change.dtype)
    valid = grid.valid()
    old = torch.where(valid, patch.taken(change), 0.0)
    rest = torch.where(valid & ~other.inside(gains), other.taken(change), 0.0)
    spare = _powers(old, power) + _powers(rest, power)
    new = _stretched(hill * signs, old, spare + unused, eps, power)
    other.write(found, other.taken(centre))
    patch.write(found, torch.clamp(patch.taken(centre) + grid.own(new), patch.taken(low), patch.taken(high)))
    return found


def bump(windows: Windows, upright: Tensor, *, height: int, width: int, power: int, dtype: torch.dtype) -> Tensor:
    """A hill and a valley side by side in each sample's window, zero elsewhere: (n, height, width), of length 1.

    Both are equally long in the norm. Heights fall from the middle of each half as the sums of 1/j**2 from the distance
    on, counted in steps of a king.

    Args:
        windows: where; cut to the image where it is smaller.
        upright: bool (n,), whether the halves lie one above the other; on a line they never do.
        height: of the image; 1 for a line.
        width: of the image.
        power: 1: lengths are those of l1; 2: of l2.
        dtype: of the result, float32 or wider.
    """
    top, left, side = windows
    tall, wide = side.clamp(max=height), side.clamp(max=width)
    stacked = upright & (height > 1)
    rows, row_sign = _hill(top, tall, stacked, height)
    columns, column_sign = _hill(left, wide, ~stacked, width)
    sums = _sums(max(height, width) + 2, dtype, top.device)
    base = (side // 2 + 1).clamp(max=len(sums) - 1)
    # The sum grows with the distance, so that of the larger distance is the larger sum.
    rows, columns = (sums[torch.minimum(each, base.unsqueeze(1))] for each in (rows, columns))
    found = sums[base].reshape(-1, 1, 1) - torch.maximum(rows.unsqueeze(2), columns.unsqueeze(1))
    found = found.mul_(row_sign.unsqueeze(2)).mul_(column_sign.unsqueeze(1)).unsqueeze(1)
    return _unit(_unit(found.clamp(min=0.0), power) + _unit(found.clamp(max=0.0), power), power).squeeze(1)


def _on_host(tensor: Tensor) -> bool:
    """Whether a look at the largest window is free; elsewhere it makes the host wait, and masks are the better way."""
    return tensor.device.type == "cpu"


@dataclass(frozen=True, slots=True, eq=False)
class _Grid:
    """The rectangle of the largest window's size, on the host; what a smaller window lacks, it repeats.

    Attributes:
        side: int64 (n,), of each window.
        offset: int64 (n, s), from the window's first column, and from its first row.
        most: the largest side.
        some_empty: whether there is an empty window.
        shape: height and width of the images.
    """

    side: Tensor
    offset: Tensor
    most: int
    some_empty: bool
    shape: tuple[int, int]

    @property
    def rows(self) -> int:
        """Height of the rectangle."""
        return 1 if self.shape[0] == 1 else self.most

    def valid(self) -> Tensor:
        """Which elements are no repetition, bool (n, 1, r, s); none of an empty window."""
        found = _places(self.most, self.side.device) < self.side.unsqueeze(1)
        if self.rows == 1:
            return found[:, None, None, :]
        return (found.unsqueeze(2) & found.unsqueeze(1)).unsqueeze(1)

    def own(self, values: Tensor) -> Tensor:
        """Values (n, c, r, s) with the repeated elements' ones repeated."""
        local = self.offset.unsqueeze(1)
        if self.rows > 1:
            local = ((self.offset * self.most).unsqueeze(2) + local).view(len(local), 1, -1)
        flat = values.flatten(2)
        return flat.gather(2, local.expand(-1, flat.shape[1], -1)).view(values.shape)


@dataclass(frozen=True, slots=True, eq=False)
class _Patch:
    """A grid laid on images: `row` int64 (n, r), `column` int64 (n, s), `index` int64 (n, 1, r * s) into flat ones."""

    grid: _Grid
    row: Tensor
    column: Tensor
    index: Tensor

    def taken(self, images: Tensor) -> Tensor:
        """The elements of images (n, c, h, w): (n, c, r, s)."""
        count, channels = images.shape[:2]
        found = images.view(count, channels, -1).gather(2, self.index.expand(-1, channels, -1))
        return found.view(count, channels, self.grid.rows, self.grid.most)

    def inside(self, windows: Windows) -> Tensor:
        """Whether the elements lie in windows of the same sides: bool (n, 1, r, s)."""
        across = _within(self.column - windows.left.unsqueeze(1), windows.side)
        if self.grid.shape[0] == 1:
            return across[:, None, None, :]
        down = _within(self.row - windows.top.unsqueeze(1), windows.side)
        return (down.unsqueeze(2) & across.unsqueeze(1)).unsqueeze(1)

    def write(self, images: Tensor, values: Tensor) -> None:
        """Put values (n, c, r, s) into images (n, c, h, w) where windows are not empty."""
        flat = images.view(*images.shape[:2], -1)
        index, written = self.index.expand(-1, flat.shape[1], -1), values.flatten(2)
        if self.grid.some_empty:
            written = torch.where(self.grid.side.reshape(-1, 1, 1) > 0, written, flat.gather(2, index))
        flat.scatter_(2, index, written)


def _grid(side: Tensor, shape: tuple[int, int]) -> _Grid | None:
    """For windows of sides (n,) on images of a height and width; None where all are empty."""
    least, most = (int(each) for each in side.aminmax())
    if not most:
        return None
    offset = _offset(side, most)
    return _Grid(side, offset if least else offset.clamp_(min=0), most, not least, shape)


def _offset(side: Tensor, most: int) -> Tensor:
    return torch.minimum(_places(most, side.device), side.unsqueeze(1) - 1)


def _patch(grid: _Grid, windows: Windows) -> _Patch:
    height, width = grid.shape
    column = windows.left.unsqueeze(1) + grid.offset
    if height == 1:
        return _Patch(grid, column, column, column.unsqueeze(1))
    row = windows.top.unsqueeze(1) + grid.offset
    index = (row * width).unsqueeze(2) + column.unsqueeze(1)
    return _Patch(grid, row, column, index.view(len(row), 1, -1))


def _hills(grid: _Grid, upright: Tensor, power: int, dtype: torch.dtype) -> Tensor:
    """Bumps of length 1 alone in the rectangle: (n, 1, r, s)."""
    rows = grid.rows
    if grid.most <= _TABLED:
        return _table(rows, grid.most, power, dtype)[upright.long(), grid.side].unsqueeze(1)
    nought = torch.zeros_like(grid.side)
    alone = Windows(nought, nought, grid.side)
    return bump(alone, upright, height=rows, width=grid.most, power=power, dtype=dtype).unsqueeze(1)


@functools.lru_cache(maxsize=4 * _TABLED)
def _table(rows: int, most: int, power: int, dtype: torch.dtype) -> Tensor:
    """All bumps of sides 0 to `most`, both ways up: (2, most + 1, rows, most)."""
    side = torch.arange(most + 1).repeat(2)
    alone = Windows(torch.zeros_like(side), torch.zeros_like(side), side)
    upright = torch.arange(2).repeat_interleave(most + 1) > 0
    found = bump(alone, upright, height=rows, width=most, power=power, dtype=dtype)
    return found.view(2, most + 1, rows, most)


def _mask(windows: Windows, like: Tensor) -> Tensor:
    """Which elements of images (n, c, h, w) lie in the windows: bool (n, 1, 1 or h, w)."""
    across = _span(windows.left, windows.side, like.shape[3])[:, None, None, :]
    if like.shape[2] == 1:
        return across
    return across & _span(windows.top, windows.side, like.shape[2])[:, None, :, None]


def _span(first: Tensor, count: Tensor, length: int) -> Tensor:
    return _within(_places(length, first.device) - first.unsqueeze(1), count)


def _within(place: Tensor, count: Tensor) -> Tensor:
    """Which places (n, l), counted from a first one, are among `count` (n,)."""
    return (place >= 0) & (place < count.unsqueeze(1))


def _stretched(hill: Tensor, old: Tensor, powers: Tensor, eps: float, power: int) -> Tensor:
    """The sum of a bump of length 1 and of what was there, scaled to 1; with its sums of powers set to `powers`.

    What next to nothing is left of, there or in the sum, is rounding, which must not be blown up.
    """
    both = hill + old / _lengths(old, power).clamp_(min=_NEXT_TO_NOTHING * eps)
    length = powers if power == 1 else powers.sqrt()
    return both * (length / _lengths(both, power).clamp_(min=_NEXT_TO_NOTHING))


def _powers(changes: Tensor, power: int) -> Tensor:
    """The sum of |x| or of x squared over each channel (n, c, h, w): (n, c, 1, 1)."""
    return _lengths(changes, power) ** power


def _lengths(changes: Tensor, power: int) -> Tensor:
    """The l1 or l2 norm of each channel (n, c, h, w): (n, c, 1, 1)."""
    return cast("Tensor", torch.linalg.vector_norm(changes, power, dim=(2, 3), keepdim=True))


def _unit(changes: Tensor, power: int) -> Tensor:
    """Each channel scaled to length 1; zero where it is zero."""
    return changes / _lengths(changes, power).clamp_(min=torch.finfo(changes.dtype).tiny)


def _hill(first: Tensor, count: Tensor, halved: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Along one side: distances from the middle, very large outside of the window, and signs, both (n, length)."""
    place = _places(length, first.device) - first.unsqueeze(1)
    count = count.unsqueeze(1)
    half = torch.where(halved.unsqueeze(1), count // 2, 0)
    second = place >= half
    middle = torch.where(second, half + (count - half) // 2, half // 2)
    far = torch.where((place >= 0) & (place < count), (place - middle).abs(), 1 << 30)
    return far, torch.where(second & halved.unsqueeze(1), -1.0, 1.0)


@functools.lru_cache(maxsize=64)
def _places(length: int, device: torch.device) -> Tensor:
    return torch.arange(length, device=device)


@functools.lru_cache(maxsize=16)
def _sums(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """0, 1, 1 + 1/4, 1 + 1/4 + 1/9 and so on, `count` of them."""
    terms = torch.arange(1, count, dtype=torch.float64, device=device).square().reciprocal().cumsum(0)
    return torch.cat((terms.new_zeros(1), terms)).to(dtype)

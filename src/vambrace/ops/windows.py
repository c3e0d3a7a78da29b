"""Random windows on images and lines, one for each sample, and the bump that random search adds inside one.

Samples are seen as channels of height and width: an image as it is, any other sample as a line, of height 1. A window
is a rectangle over all channels; what lies in which is told by one mask of rows and one of columns, so that every
sample has a window of its own size and place at the price of a comparison.

    >>> import torch
    >>> frame((3, 28, 28)), frame((20,)), frame((6, 50))
    ((3, 28, 28), (1, 1, 20), (6, 1, 50))
    >>> spans(torch.tensor([1]), torch.tensor([2]), 5).tolist()
    [[False, True, True, False, False]]

Reference: Andriushchenko et al. 2020, arXiv 1912.00049, section 3.3 (the bump for l2, equation 2).
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["bump", "frame", "spans", "square_side"]


def frame(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width of a sample of `shape`: (c, h, w) is an image, (d,) a line, (c, ...) lines."""
    if len(shape) == 3:
        return (shape[0], shape[1], shape[2])
    return (1, 1, shape[0]) if len(shape) == 1 else (shape[0], 1, math.prod(shape[1:]))


def square_side(share: float, height: int, width: int) -> int:
    """The side of the square that covers a share of a height by width image, or of a line; rounded, at least 1."""
    side = share * width if height == 1 else math.sqrt(share * height * width)
    return max(1, round(side))


def spans(first: Tensor, count: Tensor, length: int) -> Tensor:
    """Which of `length` places lie in the `count` from `first` on, int64 (n,) each: bool (n, length)."""
    place = _places(length, first.device)
    return (place >= first.unsqueeze(1)) & (place < (first + count).unsqueeze(1))


def bump(top: Tensor, left: Tensor, side: Tensor, upright: Tensor, *, height: int, width: int) -> Tensor:
    """A hill and a valley side by side in each sample's window, zero elsewhere: (n, height, width), in float32.

    Heights fall from the middle of each half as the sums of 1/j**2 from the distance on, counted in steps of a king.

    Args:
        top: int64 (n,), first row of the window.
        left: int64 (n,), first column.
        side: int64 (n,), its height and width, where the image has as many.
        upright: bool (n,), whether the halves lie one above the other; on a line they never do.
        height: of the image; 1 for a line.
        width: of the image.
    """
    tall, wide = side.clamp(max=height), side.clamp(max=width)
    stacked = upright & (height > 1)
    rows, row_sign = _hill(top, tall, stacked, height)
    columns, column_sign = _hill(left, wide, ~stacked, width)
    sums = _sums(max(height, width) + 2, top.device)
    base = (side // 2 + 1).clamp(max=len(sums) - 1)
    # The sum grows with the distance, so that of the larger distance is the larger sum.
    rows, columns = (sums[torch.minimum(each, base.unsqueeze(1))] for each in (rows, columns))
    found = sums[base].reshape(-1, 1, 1) - torch.maximum(rows.unsqueeze(2), columns.unsqueeze(1))
    return found.mul_(row_sign.unsqueeze(2)).mul_(column_sign.unsqueeze(1))


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
def _sums(count: int, device: torch.device) -> Tensor:
    """0, 1, 1 + 1/4, 1 + 1/4 + 1/9 and so on, `count` of them."""
    terms = torch.arange(1, count, dtype=torch.float64, device=device).square().reciprocal().cumsum(0)
    return torch.cat((terms.new_zeros(1), terms)).float()

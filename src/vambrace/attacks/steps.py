"""Random steps of attacks on labels: white noise, and on images coarse noise beside it; and where steps matter.

How a decision lies is more a matter of areas than of single pixels, so a few coarse steps tell more of it than as many
white ones. They cannot tell all of it, so the white part stays.

References: Brunner, Diehl, Truong Le, Knoll 2019, "Guessing Smart: Biased Sampling for Efficient Black-Box Adversarial
Attacks", arXiv 1812.09803 (low frequencies, regional masks); Li, Xu, Zhang, Yang, Li 2020, "QEBA: Query-Efficient
Boundary-Based Blackbox Attack", arXiv 2005.14137 (spatial subspace).
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, cast

import torch

from vambrace.ops import draws

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.rng import Streams

__all__ = ["LARGEST", "areas", "deviation", "smoothed", "stepped"]

LARGEST = 2040
"""The largest element of a step: of so few bits that sums of 8,224 are exact in float32, and products in TF32."""

_CELLS = (14, 7)  # along a side of the image
_WHITE, _COARSE = 2, 3  # parts of each kind, where there are both
_LEAST = 0.3  # of the mean size of a change


def deviation(shape: tuple[int, ...], *, coarse: bool) -> float:
    """Standard deviation of an element of `stepped`; arguments as there.

    >>> round(deviation((1, 28, 28), coarse=True) / deviation((784,), coarse=True), 2)
    6.63
    """
    mixed = coarse and len(shape) == 3
    return draws.ODD_SIZE * math.sqrt(_WHITE**2 + len(_CELLS) * _COARSE**2) if mixed else draws.BELL_SIZE


def stepped(stream: Streams, ids: Tensor, *, step: Tensor, shape: tuple[int, ...], coarse: bool) -> Tensor:
    """Random steps, float32 (n, *shape): whole numbers, of `LARGEST` at most.

    Coarse noise has one value in a cell of about 1/14 of the image along each side, and another one in a cell of about
    1/7. Where cells begin is drawn for the stream, so that over several streams no pixel is always at an edge.

    Args:
        stream: of the draws; one for each turn of a search.
        ids: int64 (n,), for whom.
        step: int64 (n,), how many-eth time.
        shape: of one sample.
        coarse: whether there is coarse noise beside the white; without effect unless a sample is an image (c, h, w).
    """
    if not coarse or len(shape) != 3:
        return draws.bell(stream, ids, step=step, shape=shape)
    channels, *sides = shape
    size = [[-(-side // cells) for side in sides] for cells in _CELLS]
    grids = [(channels, *(-(-side // cell) + 1 for side, cell in zip(sides, each, strict=True))) for each in size]
    # All from one draw, of numbers whose sums only have to be near normal; and in 16 bits, which hold the sums, and are
    # moved and added in half the time.
    counts = [math.prod(each) for each in (shape, *grids)]
    drawn = draws.odd(stream, ids, step=step, shape=(sum(counts),), dtype=torch.int16)
    white, *others = cast("tuple[Tensor, ...]", drawn.split(counts, dim=1))
    noise = (white * _WHITE).view(len(ids), *shape)
    for values, grid, cells in zip(others, grids, size, strict=True):
        first = stream.child("first", *cells).key  # 64 random bits, half of them for each side
        row, column = (
            _cells(side, cell, (word & 0xFFFFFFFF) * cell >> 32, noise.device)
            for side, cell, word in zip(sides, cells, (first >> 32, first), strict=True)
        )
        # In two copies, of which the second moves whole rows: one alone would move pieces of a cell's width.
        wide = values.reshape(len(ids), *grid).index_select(3, column).index_select(2, row)
        noise.add_(wide, alpha=_COARSE)
    return noise.float()


@functools.lru_cache(maxsize=256)
def _cells(length: int, cell: int, first: int, device: torch.device) -> Tensor:
    """The number of the cell in which each of `length` pixels lies, the first one as number `first` of its cell."""
    return (torch.arange(length, device=device) + first).div_(cell, rounding_mode="floor")


def areas(change: Tensor) -> Tensor:
    """How large steps should be where: in proportion to the size of a change round about, and nowhere nothing.

    Args:
        change: (m, ...), of points that reach the goal, from their inputs.

    Returns:
        (m, 1, h, w) for images (m, c, h, w), with mean 1.3; for other samples 1 everywhere.
    """
    if change.dim() != 4:
        return change.new_ones((len(change), *[1] * (change.dim() - 1)))
    size = smoothed(change.abs(), 3)
    mean = size.mean(dim=(1, 2, 3), keepdim=True)
    return size / mean.clamp_(min=1e-30) + _LEAST


def smoothed(images: Tensor, side: int) -> Tensor:
    """Means (m, 1, h, w) over all channels of images (m, c, h, w), in a window of `side` (odd) pixels around each."""
    pixels = images.mean(dim=1, keepdim=True)
    return _windows(pixels, side // 2).div_(_counts(*pixels.shape[2:], side // 2, pixels.dtype, pixels.device))


@functools.lru_cache(maxsize=16)
def _counts(height: int, width: int, reach: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """How many pixels lie no further away than `reach`: (height, width)."""
    return _windows(torch.ones((height, width), dtype=dtype, device=device), reach)


def _windows(pixels: Tensor, reach: int) -> Tensor:
    """Sums over the pixels (..., h, w) no further away than `reach` along each side."""
    for axis in (-2, -1):
        total, length = pixels.clone(), pixels.shape[axis]
        for shift in range(1, min(reach, length - 1) + 1):
            kept = length - shift
            total.narrow(axis, 0, kept).add_(pixels.narrow(axis, shift, kept))
            total.narrow(axis, shift, kept).add_(pixels.narrow(axis, 0, kept))
        pixels = total
    return pixels

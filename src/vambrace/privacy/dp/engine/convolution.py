"""The piece of a convolution's weight: one, two or three dimensions, with groups, strides, padding and dilation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from vambrace.privacy.dp.engine.pieces import folded, wide
from vambrace.privacy.dp.engine.products import Product, ghost_pays, grams

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Convolved", "Window", "patches"]


@dataclass(frozen=True, slots=True)
class Window:
    """How a convolution looks at its input; a number for every spatial dimension.

    Attributes:
        kernel: spatial size of the weight.
        stride: as torch has it.
        padding: zeros on (left, right) of each dimension.
        dilation: as torch has it.
        groups: as torch has it.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def symmetric(self) -> bool:
        """Whether as much is padded on the left as on the right."""
        return all(left == right for left, right in self.padding)

    @property
    def sides(self) -> list[int]:
        """The padding as `F.pad` takes it, last dimension first."""
        return [side for pair in reversed(self.padding) for side in pair]


_CACHED = 2**19
"""Elements of patches that are laid out at a time: 2 MiB, about a core's own cache. All at once took twice as long."""

_LINE = 16
"""Elements of float32 in a cache line."""


def patches(padded: Tensor, window: Window) -> Tensor:
    """What each position of the output sees of padded inputs (n, c, *spatial): (n, c * kernel, positions)."""
    dims = len(window.kernel)
    kernel_first = (0, 1, *range(2 + dims, 2 + 2 * dims), *range(2, 2 + dims))
    return _unfolded(padded, window, 2).permute(kernel_first).flatten(2 + dims).flatten(1, 1 + dims)


def _patches_in_any_order(padded: Tensor, window: Window, width: int) -> Tensor:
    """`patches`, whose rows may lie in another order: for Gram matrices, which do not see it.

    Memory is copied in runs of one row of outputs, `width`, or of all channels, whichever fills a cache line.
    """
    if padded.shape[1] < _LINE or width >= _LINE:
        return patches(padded, window)
    dims = len(window.kernel)
    channels_last = padded.movedim(1, -1).contiguous()
    seen = _unfolded(channels_last, window, 1).movedim(1 + dims, -1)
    return seen.flatten(1 + dims).flatten(1, dims).mT


def _unfolded(inputs: Tensor, window: Window, first: int) -> Tensor:
    """A view whose spatial dimensions, from `first` on, are positions; what each sees is in dimensions at the end."""
    for place, (size, step, gap) in enumerate(zip(window.kernel, window.stride, window.dilation, strict=True)):
        inputs = inputs.unfold(first + place, (size - 1) * gap + 1, step)[..., ::gap]
    return inputs


class Convolved(Product):
    """A weight (o, c / groups, *kernel) that took inputs (m, c, *spatial) to outputs with gradients (m, o, *positions).

    Args:
        inputs: m = n or a multiple of it: then several neighbouring images belong to one sample.
        slopes: as the outputs.
        shape: of the weight.
        window: how the convolution looks at its input.
        count: n.
    """

    def __init__(self, inputs: Tensor, slopes: Tensor, shape: tuple[int, ...], window: Window, count: int) -> None:
        images = len(slopes) // count
        positions, outputs = math.prod(slopes.shape[2:]) * images, shape[0] // window.groups
        super().__init__(math.prod(shape), ghost=ghost_pays(positions, outputs, math.prod(shape[1:])))
        self._inputs, self._slopes = inputs, slopes
        self._shape, self._window, self._count, self._images = shape, window, count, images

    def ghost(self) -> tuple[Tensor, Tensor, Tensor]:
        groups = self._window.groups
        pairs = self._matrices(slice(None), in_any_order=groups == 1)
        found = [grams(seen.flatten(0, 1).mT, slopes.flatten(0, 1).mT) for seen, slopes in pairs]
        squares, apart, longest = (torch.cat(each).view(-1, groups) for each in zip(*found, strict=True))
        return squares.sum(dim=1), apart.sum(dim=1), longest.amax(dim=1)

    def written(self, rows: slice | Tensor) -> Tensor:
        length = len(range(self._count)[rows]) if isinstance(rows, slice) else len(rows)
        out = wide(self._slopes[:0]).new_empty(length, *self._shape)
        done = 0
        for seen, slopes in self._matrices(rows):
            part = out[done : done + len(seen)].view(len(seen), self._window.groups, -1, seen.shape[2])
            torch.matmul(slopes, seen.mT, out=part)
            done += len(seen)
        return out

    def release(self) -> None:
        self._inputs, self._slopes = self._inputs.new_empty(0), self._slopes.new_empty(0)

    def add_weighted(self, factors: Tensor, out: Tensor) -> None:
        # Factors go to the smaller side, in float32 at least.
        window, inputs, slopes = self._window, self._inputs, self._slopes
        each = factors.repeat_interleave(self._images).view(-1, *(1,) * (slopes.dim() - 1))
        if inputs.numel() < slopes.numel():
            inputs, slopes = inputs * each, wide(slopes)
        else:
            inputs, slopes = wide(inputs), slopes * each
        padding = [left for left, _ in window.padding]
        if not window.symmetric:
            inputs = F.pad(inputs, window.sides)
            padding = [0] * len(padding)
        out += torch.ops.aten.convolution_backward(
            slopes,
            inputs,
            out,
            None,
            window.stride,
            padding,
            window.dilation,
            False,
            [0] * len(padding),
            window.groups,
            (False, True, False),
        )[1]

    def drop(self, kept: Tensor) -> None:
        super().drop(kept)
        if self._kept is not None:
            return
        each = kept.repeat_interleave(self._images)
        each = ~each.view(-1, *(1,) * (self._slopes.dim() - 1))
        self._inputs, self._slopes = self._inputs.masked_fill(each, 0.0), self._slopes.masked_fill(each, 0.0)

    def _matrices(self, rows: slice | Tensor, *, in_any_order: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """What is seen (m, groups, c * kernel, L) and slopes (m, groups, o, L) by group, some samples at a time."""
        groups, images, window = self._window.groups, self._images, self._window
        inputs, outputs = self._inputs, self._slopes
        if isinstance(rows, Tensor) or rows != slice(None):
            inputs, outputs = (folded(each, 0, (-1, images))[rows].flatten(0, 1) for each in (inputs, outputs))
        positions, pads = math.prod(outputs.shape[2:]), any(window.sides)
        laid_out = inputs.shape[1] * math.prod(window.kernel) * positions * images
        step = max(1, _CACHED // max(1, laid_out)) * images
        for first in range(0, len(outputs), step):
            given = wide(inputs[first : first + step])
            given = F.pad(given, window.sides) if pads else given
            lie = _patches_in_any_order(given, window, outputs.shape[-1]) if in_any_order else patches(given, window)
            seen = folded(lie, 1, (groups, -1))
            slopes = wide(outputs[first : first + step]).reshape(len(seen), groups, -1, positions)
            if images > 1:
                seen, slopes = _side_by_side(seen, images), _side_by_side(slopes, images)
            yield seen, slopes


def _side_by_side(parts: Tensor, images: int) -> Tensor:
    """Matrices (m * images, groups, a, L) of neighbouring images as one, (m, groups, a, images * L)."""
    return folded(parts, 0, (-1, images)).permute(0, 2, 3, 1, 4).flatten(3)

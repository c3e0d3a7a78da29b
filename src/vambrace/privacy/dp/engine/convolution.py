"""The piece of a convolution's weight: one, two or three dimensions, with groups, strides, padding and dilation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from vambrace.privacy.dp.engine.pieces import ghost_pays, squared_lengths, wide

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


_CACHED = 2**19
"""Elements of patches that are laid out at a time: 2 MiB, about a core's own cache. All at once took twice as long."""


def patches(padded: Tensor, window: Window) -> Tensor:
    """What each position of the output sees of padded inputs (n, c, *spatial): (n, c * kernel, positions)."""
    seen = padded
    for place, (size, step, gap) in enumerate(zip(window.kernel, window.stride, window.dilation, strict=True)):
        seen = seen.unfold(2 + place, (size - 1) * gap + 1, step)[..., ::gap]
    dims = len(window.kernel)
    kernel_first = (0, 1, *range(2 + dims, 2 + 2 * dims), *range(2, 2 + dims))
    return seen.permute(kernel_first).flatten(2 + dims).flatten(1, 1 + dims)


class Convolved:
    """A weight (o, c / groups, *kernel) that took inputs (m, c, *spatial) to outputs with gradients (m, o, *positions).

    Args:
        inputs: m = n or a multiple of it: then several neighbouring images belong to one sample.
        slopes: as the outputs.
        shape: of the weight.
        window: how the convolution looks at its input.
        count: n.
    """

    def __init__(self, inputs: Tensor, slopes: Tensor, shape: tuple[int, ...], window: Window, count: int) -> None:
        self._inputs, self._slopes = wide(inputs), wide(slopes)
        self._shape, self._window, self._count = shape, window, count
        self._kept: Tensor | None = None

    @property
    def method(self) -> str:
        positions = math.prod(self._slopes.shape[2:]) * (len(self._slopes) // self._count)
        outputs = self._shape[0] // self._window.groups
        return "ghost" if ghost_pays(positions, outputs, math.prod(self._shape[1:])) else "instantiated"

    def squares(self) -> Tensor:
        if self.method == "ghost":
            found: list[Tensor] = []
            for seen, slopes in self._matrices(slice(0, self._count)):
                grams = seen.mT @ seen, slopes.mT @ slopes
                found.append(grams[0].mul_(grams[1]).sum(dim=(1, 2, 3)))
            return torch.cat(found).clamp_(min=0.0)
        self._kept = self.per_sample(slice(None))
        return squared_lengths(self._kept)

    def per_sample(self, rows: slice) -> Tensor:
        chosen = range(self._count)[rows]
        out = self._slopes.new_empty(len(chosen), *self._shape)
        done = 0
        for seen, slopes in self._matrices(slice(chosen.start, chosen.stop)):
            part = out[done : done + len(seen)].view(len(seen), self._window.groups, -1, seen.shape[2])
            torch.matmul(slopes, seen.mT, out=part)
            done += len(seen)
        return out

    def add_sum(self, factors: Tensor, out: Tensor) -> None:
        if self._kept is not None:
            out.view(-1).addmv_(self._kept.flatten(1).t(), factors)
            return
        window, inputs = self._window, self._inputs
        each = factors.repeat_interleave(len(self._slopes) // self._count)
        weighted = self._slopes * each.view(-1, *(1,) * (self._slopes.dim() - 1))
        padding = [left for left, _ in window.padding]
        if not window.symmetric:
            inputs = F.pad(inputs, [side for pair in reversed(window.padding) for side in pair])
            padding = [0] * len(padding)
        out += torch.ops.aten.convolution_backward(
            weighted,
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
        each = kept.repeat_interleave(len(self._slopes) // self._count)
        each = ~each.view(-1, *(1,) * (self._slopes.dim() - 1))
        self._inputs, self._slopes = self._inputs.masked_fill(each, 0.0), self._slopes.masked_fill(each, 0.0)
        self._kept = None

    def _matrices(self, rows: slice) -> Iterator[tuple[Tensor, Tensor]]:
        """What is seen (m, groups, c * kernel, L) and slopes (m, groups, o, L) by group, some samples at a time."""
        groups, images = self._window.groups, len(self._slopes) // self._count
        sides = [side for pair in reversed(self._window.padding) for side in pair]
        padded = F.pad(self._inputs, sides) if any(sides) else self._inputs
        laid_out = padded.shape[1] * math.prod(self._window.kernel) * math.prod(self._slopes.shape[2:]) * images
        step = max(1, _CACHED // max(1, laid_out))
        for first in range(rows.start, rows.stop, step):
            chosen = slice(first * images, min(rows.stop, first + step) * images)
            seen, slopes = patches(padded[chosen], self._window), self._slopes[chosen]
            seen = seen.unflatten(1, (groups, -1))
            slopes = slopes.reshape(len(slopes), groups, self._shape[0] // groups, -1)
            if images > 1:
                seen, slopes = (
                    each.unflatten(0, (-1, images)).permute(0, 2, 3, 1, 4).flatten(3) for each in (seen, slopes)
                )
            yield seen, slopes

"""What one use of a parameter adds to its gradient, sample by sample: norms, per-sample gradients, weighted sums.

A piece holds what a layer was given and the gradient of what it gave, both with samples first. It knows the per-sample
gradient of one parameter; `products` has the pieces that need not write it down.

Everything is computed in float32 at least, whatever the activations are: in half precision the sum of clipped gradients
would be rounded after it was measured, and so exceed the bound. For the same reason a piece adds what it has measured,
not the same thing computed another way, wherever the two could differ by more than rounding.
"""

from __future__ import annotations

from typing import Protocol, cast

import torch
from torch import Tensor

__all__ = [
    "Block",
    "Direct",
    "Piece",
    "Plain",
    "Rows",
    "WHY",
    "flat",
    "folded",
    "kept_rows",
    "lengths",
    "over_positions",
    "split",
    "squared_lengths",
    "wide",
]


WHY = {
    "ghost": "its norm follows from two Gram matrices, cheaper than its per-sample gradients",
    "instantiated": "its per-sample gradients are smaller than Gram matrices over its positions",
    "direct": "its per-sample gradients are small",
    "rows": "a sample touches few rows of it",
}
"""Each method in words."""


class Piece(Protocol):
    """The gradient of one parameter from one use of it."""

    @property
    def method(self) -> str:
        """How it is computed at these shapes: "ghost", "instantiated", "direct" or "rows"."""
        ...

    def squares(self) -> Tensor:
        """Squared l2 norms of the per-sample gradients, (n,)."""
        ...

    def doubts(self) -> Tensor | None:
        """Bool (n,) after `squares`: norms that rounding may have spoilt; None where that cannot be."""
        ...

    def settle(self) -> None:
        """Measure the doubtful again; `squares` then gives their true norms, and `add_sum` uses what was measured."""
        ...

    def per_sample(self, rows: slice | Tensor) -> Tensor:
        """Per-sample gradients of some rows, (m, *shape of the parameter)."""
        ...

    def add_sum(self, factors: Tensor, out: Tensor) -> None:
        """Add the sum of the per-sample gradients, each times its factor (n,), to `out` (shape of the parameter)."""
        ...

    def drop(self, kept: Tensor) -> None:
        """Make the gradients of the rows where `kept` (n,) is False exactly zero, whatever they hold."""
        ...


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float32, or in what it is where that is no less."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def over_positions(slopes: Tensor) -> Tensor:
    """Gradients (n, T, p) summed over positions, in float32 at least; the same memory where there is one position."""
    if slopes.shape[1] == 1:
        return wide(slopes[:, 0])
    return slopes.sum(dim=1, dtype=wide(slopes[:0]).dtype)


def folded(tensor: Tensor, dim: int, sizes: tuple[int, ...]) -> Tensor:
    """`unflatten`, which torch does not type."""
    return cast("Tensor", tensor.unflatten(dim, sizes))


def split(tensor: Tensor, size: int, dim: int = 0) -> tuple[Tensor, ...]:
    """`split`, which torch does not type."""
    return cast("tuple[Tensor, ...]", tensor.split(size, dim))


def flat(tensor: Tensor) -> Tensor:
    """(n, ...) as (n, elements), also where that is (n,)."""
    return tensor.flatten(1) if tensor.dim() > 1 else tensor.unsqueeze(1)


def lengths(tensor: Tensor) -> Tensor:
    """L2 norms (n,) of the rows of (n, ...)."""
    return cast("Tensor", torch.linalg.vector_norm(flat(tensor), dim=1))


def kept_rows(tensor: Tensor, kept: Tensor) -> Tensor:
    """The tensor (n, ...) with zeros where `kept` (n,) is False."""
    return tensor.masked_fill(~kept.view(-1, *(1,) * (tensor.dim() - 1)), 0.0)


def squared_lengths(tensor: Tensor) -> Tensor:
    """Squared l2 norms (n,) of the rows of (n, ...)."""
    return lengths(tensor).square_()


class Plain:
    """Base of the pieces that are measured as they are added."""

    def doubts(self) -> Tensor | None:
        return None

    def settle(self) -> None:
        return


class Rows(Plain):
    """A table (v, d) of which a sample took the rows `index` (n, T), with gradients (n, T, d)."""

    def __init__(self, index: Tensor, slopes: Tensor, shape: tuple[int, ...], padding: int | None) -> None:
        slopes = wide(slopes)
        if padding is not None:
            slopes = slopes.masked_fill((index == padding).unsqueeze(2), 0.0)
        # What a sample took twice adds up first: equal rows of one sample stand together once sorted, and the first of
        # them gets the sum. So what is measured is what is added.
        count, positions = index.shape
        order = index.argsort(dim=1)
        taken = index.gather(1, order)
        first = torch.ones_like(taken, dtype=torch.bool)
        first[:, 1:] = taken[:, 1:] != taken[:, :-1]
        group = first.cumsum(dim=1).sub_(1)
        sorted_slopes = slopes.gather(1, order.unsqueeze(2).expand_as(slopes)).flatten(0, 1)
        flat = (group + torch.arange(count, device=group.device).unsqueeze(1) * positions).flatten()
        self._slopes = torch.zeros_like(sorted_slopes).index_add_(0, flat, sorted_slopes).view_as(slopes)
        self._index = torch.zeros_like(taken).scatter_(1, group, taken)
        self._shape = shape

    @property
    def method(self) -> str:
        return "rows"

    def squares(self) -> Tensor:
        return squared_lengths(self._slopes)

    def per_sample(self, rows: slice | Tensor) -> Tensor:
        index, slopes = self._index[rows], self._slopes[rows]
        out = slopes.new_zeros(len(index), *self._shape)
        return out.scatter_add_(1, index.unsqueeze(2).expand_as(slopes), slopes)

    def add_sum(self, factors: Tensor, out: Tensor) -> None:
        weighted = self._slopes * factors.view(-1, 1, 1)
        out.index_add_(0, self._index.flatten(), weighted.flatten(0, 1))

    def drop(self, kept: Tensor) -> None:
        self._slopes = kept_rows(self._slopes, kept)


class Direct(Plain):
    """A parameter whose per-sample gradients (n, *shape) are no larger than an activation: biases, scales, tokens."""

    def __init__(self, gradients: Tensor) -> None:
        self._gradients = gradients

    @property
    def method(self) -> str:
        return "direct"

    def squares(self) -> Tensor:
        return squared_lengths(self._gradients)

    def per_sample(self, rows: slice | Tensor) -> Tensor:
        return self._gradients[rows]

    def add_sum(self, factors: Tensor, out: Tensor) -> None:
        out.view(-1).addmv_(flat(self._gradients).t(), factors)

    def drop(self, kept: Tensor) -> None:
        self._gradients = kept_rows(self._gradients, kept)


class Block:
    """A piece of the rows `start` to `stop` of a parameter, whose other rows had no part in this use."""

    def __init__(self, inner: Piece, start: int, stop: int, shape: tuple[int, ...]) -> None:
        self._inner, self.start, self.stop, self._shape = inner, start, stop, shape

    @property
    def method(self) -> str:
        return self._inner.method

    def squares(self) -> Tensor:
        return self._inner.squares()

    def doubts(self) -> Tensor | None:
        return self._inner.doubts()

    def settle(self) -> None:
        self._inner.settle()

    def per_sample(self, rows: slice | Tensor) -> Tensor:
        part = self._inner.per_sample(rows)
        out = part.new_zeros(len(part), *self._shape)
        out[:, self.start : self.stop] = part
        return out

    def add_sum(self, factors: Tensor, out: Tensor) -> None:
        self._inner.add_sum(factors, out[self.start : self.stop])

    def drop(self, kept: Tensor) -> None:
        self._inner.drop(kept)

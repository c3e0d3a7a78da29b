"""What one use of a parameter adds to its gradient, sample by sample: norms, per-sample gradients, weighted sums.

A piece holds what a layer was given and the gradient of what it gave, both with samples first. It knows the per-sample
gradient of one parameter without having to write it down: `squares` and `add_sum` take the cheaper of two ways.

"ghost": the squared norm of a product of matrices is the sum of the elementwise product of two Gram matrices
(Goodfellow 2015, arXiv 1510.01799; Li et al. 2021, arXiv 2110.05679, section 4), and the sum over samples is the
layer's own weight gradient with the clip factors folded into the output gradients (Bu et al. 2022, arXiv 2210.00038,
section 3). "instantiated": the per-sample gradients are written down once and used for both. With T positions a sample,
p outputs and d inputs, ghost pays where 2 T^2 <= p d (Bu et al. 2022, arXiv 2205.10683, section 4).

Everything is computed in float32 at least, whatever the activations are: in half precision the sum of clipped gradients
would be rounded after it was measured, and so exceed the bound.
"""

from __future__ import annotations

from typing import Protocol, cast

import torch
from torch import Tensor

__all__ = ["WHY", "Block", "Direct", "Outer", "Piece", "Rows", "combined", "ghost_pays", "squared_lengths", "wide"]


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

    def per_sample(self, rows: slice) -> Tensor:
        """Per-sample gradients of some rows, (m, *shape of the parameter)."""
        ...

    def add_sum(self, factors: Tensor, out: Tensor) -> None:
        """Add the sum of the per-sample gradients, each times its factor (n,), to `out` (shape of the parameter)."""
        ...

    def drop(self, kept: Tensor) -> None:
        """Make the gradients of the rows where `kept` (n,) is False exactly zero, whatever they hold."""
        ...


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float32, or float64 where it is that already."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def squared_lengths(tensor: Tensor) -> Tensor:
    """Squared l2 norms (n,) of the rows of (n, ...)."""
    return torch.linalg.vector_norm(tensor.flatten(1), dim=1).square_()


def ghost_pays(positions: int, outputs: int, inputs: int) -> bool:
    """Whether Gram matrices are cheaper than writing per-sample gradients down."""
    return 2 * positions * positions <= outputs * inputs


class Outer:
    """A matrix (p, d) that took inputs (n, T, d) to outputs with gradients (n, T, p).

    Args:
        inputs: (n, T, d).
        slopes: (n, T, p).
        transposed: the parameter lies as (d, p), as in `inputs @ parameter`.
    """

    def __init__(self, inputs: Tensor, slopes: Tensor, *, transposed: bool = False) -> None:
        self.inputs, self.slopes = wide(inputs), wide(slopes)
        self.transposed = transposed
        self._kept: Tensor | None = None

    @property
    def method(self) -> str:
        positions = self.inputs.shape[1]
        pays = positions == 1 or ghost_pays(positions, self.slopes.shape[2], self.inputs.shape[2])
        return "ghost" if pays else "instantiated"

    def squares(self) -> Tensor:
        inputs, slopes = self.inputs, self.slopes
        if inputs.shape[1] == 1:
            return squared_lengths(inputs).mul_(squared_lengths(slopes))
        if self.method == "ghost":
            grams = torch.bmm(inputs, inputs.mT), torch.bmm(slopes, slopes.mT)
            # Rounding can leave a sum of products of Gram matrices below zero where the gradient is nearly zero.
            return grams[0].mul_(grams[1]).sum(dim=(1, 2)).clamp_(min=0.0)
        self._kept = self.per_sample(slice(None))
        return squared_lengths(self._kept)

    def per_sample(self, rows: slice) -> Tensor:
        inputs, slopes = self.inputs[rows], self.slopes[rows]
        return torch.bmm(inputs.mT, slopes) if self.transposed else torch.bmm(slopes.mT, inputs)

    def add_sum(self, factors: Tensor, out: Tensor) -> None:
        if self._kept is not None:
            out.view(-1).addmv_(self._kept.flatten(1).t(), factors)
            return
        weighted = (self.slopes * factors.view(-1, 1, 1)).flatten(0, 1)
        inputs = self.inputs.flatten(0, 1)
        if self.transposed:
            out.addmm_(inputs.t(), weighted)
        else:
            out.addmm_(weighted.t(), inputs)

    def drop(self, kept: Tensor) -> None:
        self.inputs, self.slopes = _kept_rows(self.inputs, kept), _kept_rows(self.slopes, kept)
        self._kept = None


class Rows:
    """A table (v, d) of which a sample took the rows `index` (n, T), with gradients (n, T, d)."""

    def __init__(self, index: Tensor, slopes: Tensor, shape: tuple[int, ...], padding: int | None) -> None:
        self._index, self.slopes, self._shape = index, wide(slopes), shape
        if padding is not None:
            self.slopes = self.slopes.masked_fill((index == padding).unsqueeze(2), 0.0)

    @property
    def method(self) -> str:
        return "rows"

    def squares(self) -> Tensor:
        # What a sample took twice adds up before it is squared: equal rows of one sample stand together once sorted.
        count, positions = self._index.shape
        order = self._index.argsort(dim=1)
        taken = self._index.gather(1, order)
        first = torch.ones_like(taken, dtype=torch.bool)
        first[:, 1:] = taken[:, 1:] != taken[:, :-1]
        group = first.cumsum(dim=1).sub_(1)  # within the sample: at most T groups
        flat = (group + torch.arange(count, device=group.device).unsqueeze(1) * positions).flatten()
        slopes = self.slopes.gather(1, order.unsqueeze(2).expand_as(self.slopes)).flatten(0, 1)
        summed = torch.zeros_like(slopes).index_add_(0, flat, slopes)
        return squared_lengths(summed.view(count, -1))

    def per_sample(self, rows: slice) -> Tensor:
        index, slopes = self._index[rows], self.slopes[rows]
        out = slopes.new_zeros(len(index), *self._shape)
        return out.scatter_add_(1, index.unsqueeze(2).expand_as(slopes), slopes)

    def add_sum(self, factors: Tensor, out: Tensor) -> None:
        weighted = self.slopes * factors.view(-1, 1, 1)
        out.index_add_(0, self._index.flatten(), weighted.flatten(0, 1))

    def drop(self, kept: Tensor) -> None:
        self.slopes = _kept_rows(self.slopes, kept)


class Direct:
    """A parameter whose per-sample gradients (n, *shape) are no larger than an activation: biases, scales, tokens."""

    def __init__(self, gradients: Tensor) -> None:
        self._gradients = gradients

    @property
    def method(self) -> str:
        return "direct"

    def squares(self) -> Tensor:
        return squared_lengths(self._gradients)

    def per_sample(self, rows: slice) -> Tensor:
        return self._gradients[rows]

    def add_sum(self, factors: Tensor, out: Tensor) -> None:
        out.view(-1).addmv_(self._gradients.flatten(1).t(), factors)

    def drop(self, kept: Tensor) -> None:
        self._gradients = _kept_rows(self._gradients, kept)


class Block:
    """A piece of the rows `start` to `stop` of a parameter, whose other rows had no part in this use."""

    def __init__(self, inner: Piece, start: int, stop: int, shape: tuple[int, ...]) -> None:
        self._inner, self.start, self.stop, self._shape = inner, start, stop, shape

    @property
    def method(self) -> str:
        return self._inner.method

    def squares(self) -> Tensor:
        return self._inner.squares()

    def per_sample(self, rows: slice) -> Tensor:
        part = self._inner.per_sample(rows)
        out = part.new_zeros(len(part), *self._shape)
        out[:, self.start : self.stop] = part
        return out

    def add_sum(self, factors: Tensor, out: Tensor) -> None:
        self._inner.add_sum(factors, out[self.start : self.stop])

    def drop(self, kept: Tensor) -> None:
        self._inner.drop(kept)


def combined(pieces: list[Piece]) -> list[Piece]:
    """Pieces of one parameter such that their squared norms may be added: gradients of several uses add up first.

    Matrices that were used several times count as one use at all their positions; blocks that do not overlap stay
    apart; anything else is written down and added.
    """
    if len(pieces) == 1:
        return pieces
    if all(isinstance(each, Block) for each in pieces):
        blocks = sorted(cast("list[Block]", pieces), key=lambda each: each.start)
        if all(one.stop <= two.start for one, two in zip(blocks, blocks[1:], strict=False)):
            return pieces
    if all(isinstance(each, Outer) for each in pieces):
        outers = cast("list[Outer]", pieces)
        if len({each.transposed for each in outers}) == 1:
            inputs = torch.cat([each.inputs for each in outers], dim=1)
            slopes = torch.cat([each.slopes for each in outers], dim=1)
            return [Outer(inputs, slopes, transposed=outers[0].transposed)]
    total = pieces[0].per_sample(slice(None)).clone()
    for piece in pieces[1:]:
        total += piece.per_sample(slice(None))
    return [Direct(total)]


def _kept_rows(tensor: Tensor, kept: Tensor) -> Tensor:
    return tensor.masked_fill(~kept.view(-1, *(1,) * (tensor.dim() - 1)), 0.0)

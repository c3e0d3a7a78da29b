"""Pieces that are sums of products over the positions of a sample, measured without writing them down where that pays.

"ghost": the squared norm of a product of matrices is the sum of the elementwise product of two Gram matrices
(Goodfellow 2015, arXiv 1510.01799; Li et al. 2021, arXiv 2110.05679, section 4), and the sum over samples is the
layer's own weight gradient with the clip factors folded into the output gradients (Bu et al. 2022, arXiv 2210.00038,
section 3). "instantiated": the per-sample gradients are written down once and used for both. With T positions a sample,
p outputs and d inputs, ghost pays where 2 T^2 <= p d (Bu et al. 2022, arXiv 2205.10683, section 4).

A sum of products of Gram matrices loses its digits where positions of a sample cancel, as in a network that compares
two nearly equal halves of its input: the norm then comes out too short, and the sample would move the sum by more than
the bound. Such samples are noticed, and their gradients are written down, to be measured and to be added.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from vambrace.privacy.dp.engine.pieces import Piece, flat, kept_rows, lengths, split, squared_lengths, wide

__all__ = ["Outer", "Product", "ghost_pays", "parts", "settle"]

_CANCELLED = 0.1
"""A squared norm below this share of what it would be if positions did not cancel is measured again."""

_HUGE = 1e26
"""Squared length of an input or a gradient from which the square of the other may be too small for float32: 10^13."""

_LEAST = 1e-18
"""The shortest vector whose square float32 holds. Shorter ones count as this long, so no product is too short."""

_FEW = 64
"""Positions below which three quarters of a Gram matrix cost no less than all of it."""

_WRITTEN = 2**24
"""Elements of per-sample gradients that are written down at a time to measure samples again: 64 MiB."""


def ghost_pays(positions: int, outputs: int, inputs: int) -> bool:
    """Whether Gram matrices are cheaper than writing per-sample gradients down."""
    return 2 * positions * positions <= outputs * inputs


def parts(rows: Tensor, size: int) -> Sequence[Tensor]:
    """Numbers of samples in parts whose per-sample gradients, `size` elements each, are written down at a time."""
    return split(rows, max(1, _WRITTEN // max(1, size)))


def settle(pieces: Iterable[Piece]) -> bool:
    """Measure again what rounding may have spoilt; whether there was any. One look at the device for all pieces."""
    doubtful = [(piece, found) for piece in pieces if (found := piece.doubts()) is not None]
    if not doubtful or not bool(torch.stack([found.any() for _, found in doubtful]).any()):
        return False
    for piece, _ in doubtful:
        piece.settle()
    return True


class Product:
    """Base of the pieces that are products over positions, with the two ways to measure and to sum them.

    Args:
        size: elements of the parameter.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: Tensor | None = None
        self._squares: Tensor | None = None
        self._doubts: Tensor | None = None
        self._exact: Tensor | None = None

    @property
    def method(self) -> str:
        """See `Piece`."""
        raise NotImplementedError

    def per_sample(self, rows: slice | Tensor) -> Tensor:
        """See `Piece`."""
        raise NotImplementedError

    def ghost(self) -> tuple[Tensor, Tensor, Tensor]:
        """By Gram matrices, each (n,): squared norms; their part within positions; the longest squared vector."""
        raise NotImplementedError

    def add_weighted(self, factors: Tensor, out: Tensor) -> None:
        """The layer's own weight gradient with factors (n,) folded in, added to `out`."""
        raise NotImplementedError

    def squares(self) -> Tensor:
        if self._squares is None:
            if self.method == "ghost":
                found, apart, longest = self.ghost()
                self._doubts = (found < _CANCELLED * apart) | (longest > _HUGE)
                self._squares = found.clamp_(min=0.0)
            else:
                self._kept = self.per_sample(slice(None))
                self._squares = squared_lengths(self._kept)
        return self._squares

    def doubts(self) -> Tensor | None:
        return self._doubts

    def settle(self) -> None:
        if self._squares is None or self._doubts is None or not bool(self._doubts.any()):
            return
        self._exact = self._doubts.nonzero().flatten()
        for rows in parts(self._exact, self._size):
            self._squares[rows] = squared_lengths(self.per_sample(rows))

    def add_sum(self, factors: Tensor, out: Tensor) -> None:
        if self._kept is not None:
            out.view(-1).addmv_(flat(self._kept).t(), factors)
            return
        if self._exact is None:
            self.add_weighted(factors, out)
            return
        # What was measured as it was written down is added as it is written down: their roundings are the same.
        self.add_weighted(factors.index_fill(0, self._exact, 0.0), out)
        for rows in parts(self._exact, self._size):
            out.view(-1).addmv_(flat(self.per_sample(rows)).t(), factors[rows])

    def drop(self, kept: Tensor) -> None:
        if self._kept is not None:
            self._kept = kept_rows(self._kept, kept)


class Outer(Product):
    """A matrix (p, d) that took inputs (n, T, d) to outputs with gradients (n, T, p).

    Args:
        inputs: (n, T, d).
        slopes: (n, T, p).
        transposed: the parameter lies as (d, p), as in `inputs @ parameter`.
    """

    def __init__(self, inputs: Tensor, slopes: Tensor, *, transposed: bool = False) -> None:
        super().__init__(inputs.shape[2] * slopes.shape[2])
        self.inputs, self.slopes = wide(inputs), wide(slopes)
        self.transposed = transposed

    @property
    def method(self) -> str:
        positions = self.inputs.shape[1]
        pays = positions == 1 or ghost_pays(positions, self.slopes.shape[2], self.inputs.shape[2])
        return "ghost" if pays else "instantiated"

    def squares(self) -> Tensor:
        if self.inputs.shape[1] == 1:
            # A vector whose square would vanish counts as a longer one: a norm may come out too long, never too short.
            seen, slopes = (lengths(each).clamp_(min=_LEAST) for each in (self.inputs, self.slopes))
            return seen.mul_(slopes).square_()
        return super().squares()

    def ghost(self) -> tuple[Tensor, Tensor, Tensor]:
        positions = self.inputs.shape[1]
        if positions < _FEW:
            return _of_grams(self.inputs, self.slopes)
        # A Gram matrix is symmetric: of its four quarters, the two beside the diagonal are the same numbers.
        early, late = ([each[:, part] for each in (self.inputs, self.slopes)] for part in _halves(positions))
        (found, apart, longest), second = _of_grams(*early), _of_grams(*late)
        seen, slopes = (torch.bmm(one, other.mT) for one, other in zip(early, late, strict=True))
        found.add_(seen.mul_(slopes).sum(dim=(1, 2)), alpha=2.0).add_(second[0])
        return found, apart.add_(second[1]), torch.maximum(longest, second[2])

    def per_sample(self, rows: slice | Tensor) -> Tensor:
        inputs, slopes = self.inputs[rows], self.slopes[rows]
        return torch.bmm(inputs.mT, slopes) if self.transposed else torch.bmm(slopes.mT, inputs)

    def add_weighted(self, factors: Tensor, out: Tensor) -> None:
        weighted = (self.slopes * factors.view(-1, 1, 1)).flatten(0, 1)
        inputs = self.inputs.flatten(0, 1)
        if self.transposed:
            out.addmm_(inputs.t(), weighted)
        else:
            out.addmm_(weighted.t(), inputs)

    def drop(self, kept: Tensor) -> None:
        super().drop(kept)
        self.inputs, self.slopes = kept_rows(self.inputs, kept), kept_rows(self.slopes, kept)


def _of_grams(inputs: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """See `Product.ghost`, for (m, T, d) and (m, T, p)."""
    seen, slopes = (torch.bmm(each, each.mT) for each in (inputs, slopes))
    longest = torch.maximum(*(gram.diagonal(dim1=1, dim2=2).amax(dim=1) for gram in (seen, slopes)))
    products = seen.mul_(slopes)
    return products.sum(dim=(1, 2)), products.diagonal(dim1=1, dim2=2).sum(dim=1), longest


def _halves(positions: int) -> tuple[slice, slice]:
    return slice(0, positions // 2), slice(positions // 2, None)

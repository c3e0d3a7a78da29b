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

from vambrace.privacy.dp.engine.pieces import (
    Piece,
    flat,
    kept_rows,
    lengths,
    over_positions,
    split,
    squared_lengths,
    wide,
)

__all__ = ["Outer", "Product", "constant", "doubtful", "ghost_pays", "grams", "parts", "settle"]

_CANCELLED = 0.1
"""A squared norm below this share of what it would be if positions did not cancel is measured again."""

_HUGE = 1e26
"""Squared length of an input or a gradient from which the square of the other may be too small for float32: 10^13."""

_LARGE = 1e36
"""A squared norm from which on rounding may decide whether float32 holds it: measured again, in one way for all."""

_LEAST = 1e-18
"""The shortest vector whose square float32 holds. Shorter ones count as this long, so no product is too short."""

_WIDTH, _STRIPS = 32, 4
"""Half of a Gram matrix is computed in strips of at least so many rows, at most so many strips: four are 5/8 of the
whole, for they are no triangles. Narrower ones cost more than they save."""

_WIDENED = 2**20
"""Elements in half precision of which float32 copies are made at a time: 4 MiB. Half as many cost 3 % of a step."""

_FOLDED = 2**17
"""Elements on a CPU that are multiplied by clip factors at a time: 512 KiB, which stay in the cache and take no fresh
pages. All at once cost 1 % of a step."""

_WRITTEN = 2**24
"""Elements of per-sample gradients that are written down at a time to measure samples again: 64 MiB."""


def constant(slopes: Tensor) -> bool:
    """Whether gradients (n, T, p) are the same at all positions, as those below a mean or a sum over them are.

    On a GPU only as far as their strides tell: to look at values would make it wait.
    """
    if slopes.stride(1) == 0 or slopes.device.type != "cpu":
        return slopes.stride(1) == 0
    first = slopes[:, :1]
    # Two positions tell nearly always.
    return torch.equal(slopes[:, 1:2], first) and torch.equal(slopes, first.expand_as(slopes))


def ghost_pays(positions: int, outputs: int, inputs: int) -> bool:
    """Whether Gram matrices are cheaper than writing per-sample gradients down."""
    return 2 * positions * positions <= outputs * inputs


def parts(rows: Tensor, size: int) -> Sequence[Tensor]:
    """Numbers of samples in parts whose per-sample gradients, `size` elements each, are written down at a time."""
    return split(rows, max(1, _WRITTEN // max(1, size)))


def grams(inputs: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What Gram matrices say of sums of outer products over positions, for inputs (m, T, d) and slopes (m, T, p).

    Returns:
        Each (m,): squared norms, their part within positions, the longest squared vector.
    """
    positions = inputs.shape[1]
    width = -(-positions // min(_STRIPS, max(1, positions // _WIDTH)))
    strips: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, positions, width):
        # Gram matrices are symmetric: rows of a strip meet themselves and what comes after them, which counts twice.
        seen, bent = (torch.bmm(each[:, start : start + width], each[:, start:].mT) for each in (inputs, slopes))
        longest = torch.maximum(*(gram.diagonal(dim1=1, dim2=2).amax(dim=1) for gram in (seen, bent)))
        products = seen.mul_(bent)
        found, apart = products.sum(dim=(1, 2)), products.diagonal(dim1=1, dim2=2).sum(dim=1)
        if start + width < positions:
            found.add_(products[:, :, width:].sum(dim=(1, 2)))
        strips.append((found, apart, longest))
    if len(strips) == 1:
        return strips[0]
    found, apart, longest = (torch.stack(each) for each in zip(*strips, strict=True))
    return found.sum(dim=0), apart.sum(dim=0), longest.amax(dim=0)


def doubtful(found: Tensor, apart: Tensor, longest: Tensor) -> Tensor:
    """Bool (n,): squared norms that may be wrong, from what `grams` gives; those that are no numbers among them."""
    return ~(found >= _CANCELLED * apart) | ~(found < _LARGE) | (longest > _HUGE)


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
        ghost: whether to measure by Gram matrices.

    Attributes:
        method: see `Piece`.
    """

    def __init__(self, size: int, *, ghost: bool) -> None:
        self.method = "ghost" if ghost else "instantiated"
        self._size = size
        self._kept: Tensor | None = None
        self._squares: Tensor | None = None
        self._doubts: Tensor | None = None
        self._exact: Tensor | None = None

    def written(self, rows: slice | Tensor) -> Tensor:
        """Per-sample gradients of some rows, from inputs and gradients of outputs."""
        raise NotImplementedError

    def release(self) -> None:
        """Let go of inputs and gradients of outputs, which `written` reads."""
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
                self._doubts = doubtful(found, apart, longest)
                self._squares = found.clamp_(min=0.0)
            else:
                self._kept = self.written(slice(None))
                self._squares = squared_lengths(self._kept)
                self.release()
        return self._squares

    def per_sample(self, rows: slice | Tensor) -> Tensor:
        return self.written(rows) if self._kept is None else self._kept[rows]

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

    Gradients that are the same at all positions make one position of them (`constant`): a sum of products that share a
    factor is the product of the other one's sum. That depends on the whole batch, and must not show: samples whose
    positions cancel are doubted as Gram matrices would doubt them, and then written down from all positions.

    Args:
        inputs: (n, T, d).
        slopes: (n, T, p).
        transposed: the parameter lies as (d, p), as in `inputs @ parameter`.
    """

    def __init__(self, inputs: Tensor, slopes: Tensor, *, transposed: bool = False) -> None:
        positions, size = inputs.shape[1], inputs.shape[2] * slopes.shape[2]
        self._one: tuple[Tensor, Tensor] | None = None
        if positions == 1:
            self._one = inputs, slopes
        elif positions and constant(slopes):
            self._one = over_positions(inputs).unsqueeze(1), slopes[:, :1]
        ghost = self._one is not None or ghost_pays(positions, slopes.shape[2], inputs.shape[2])
        super().__init__(size, ghost=ghost)
        self.inputs, self.slopes = inputs, slopes
        self.transposed = transposed

    def squares(self) -> Tensor:
        if self._one is None or self._squares is not None:
            return super().squares()
        # A vector whose square would vanish counts as a longer one: a norm may come out too long, never too short.
        seen, slope = (lengths(wide(each)).clamp_(min=_LEAST) for each in self._one)
        found = (seen * slope).square_()
        if self.inputs.shape[1] > 1:
            apart, each = squared_lengths(wide(self.inputs)), slope.square()
            self._doubts = doubtful(found, apart * each, torch.maximum(apart, each))
        self._squares = found
        return found

    def settle(self) -> None:
        super().settle()
        if self._one is not None and self._exact is not None:
            # Their sums over positions may be infinite, and infinity times zero is none.
            one, slope = self._one
            self._one = one.index_fill(0, self._exact, 0.0), slope.index_fill(0, self._exact, 0.0)

    def ghost(self) -> tuple[Tensor, Tensor, Tensor]:
        pairs = zip(*map(self._some, (self.inputs, self.slopes)), strict=True)
        found = [grams(wide(inputs), wide(slopes)) for inputs, slopes in pairs]
        squares, apart, longest = (torch.cat(each) for each in zip(*found, strict=True))
        return squares, apart, longest

    def written(self, rows: slice | Tensor) -> Tensor:
        inputs, slopes = wide(self.inputs[rows]), wide(self.slopes[rows])
        return torch.bmm(inputs.mT, slopes) if self.transposed else torch.bmm(slopes.mT, inputs)

    def _some(self, rows: Tensor) -> Sequence[Tensor]:
        """Rows of anything (n, T, k) or (T, n, k), all at once or, where they have to be widened, a few at a time."""
        if min(self.inputs.element_size(), self.slopes.element_size()) >= 4:
            return (rows,)
        each = rows.shape[1] * (self.inputs.shape[2] + self.slopes.shape[2])
        return split(rows, max(1, _WIDENED // max(1, each)))

    def _few(self, rows: Tensor) -> Sequence[Tensor]:
        """As `_some`, and on a CPU as many as may be multiplied by factors at a time."""
        if rows.device.type != "cpu" or min(self.inputs.element_size(), self.slopes.element_size()) < 4:
            return self._some(rows)
        return split(rows, max(1, _FOLDED // max(1, rows.shape[1] * min(self.inputs.shape[2], self.slopes.shape[2]))))

    def release(self) -> None:
        self.inputs, self.slopes = self.inputs.new_empty(0, 0, 0), self.slopes.new_empty(0, 0, 0)

    def add_weighted(self, factors: Tensor, out: Tensor) -> None:
        inputs, slopes = self._one or (self.inputs, self.slopes)
        first, second = (inputs, slopes) if self.transposed else (slopes, inputs)
        narrow = first.shape[2] < second.shape[2]
        each = factors.view(-1, 1, 1).expand(*first.shape[:2], 1)
        # Positions may come in any order, so they come in the one that the larger side lies in.
        if (second if narrow else first).transpose(0, 1).is_contiguous():
            first, second, each = (given.transpose(0, 1) for given in (first, second, each))
        for one, other, by in zip(*map(self._few, (first, second, each)), strict=True):
            # Factors go to the narrower side, whose copy is the smaller one, in float32 at least.
            pair = (one * by, wide(other)) if narrow else (wide(one), other * by)
            out.addmm_(pair[0].flatten(0, 1).t(), pair[1].flatten(0, 1))

    def drop(self, kept: Tensor) -> None:
        super().drop(kept)
        if self._kept is None:
            self.inputs, self.slopes = kept_rows(self.inputs, kept), kept_rows(self.slopes, kept)
        if self._one is not None:
            one, slope = self._one
            self._one = kept_rows(one, kept), kept_rows(slope, kept)

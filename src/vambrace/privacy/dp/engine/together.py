"""Several uses of one parameter: their gradients add up before they are measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from vambrace.privacy.dp.engine.pieces import Block, Piece, Plain, flat, kept_rows, squared_lengths
from vambrace.privacy.dp.engine.products import Outer, parts

__all__ = ["Together", "combined"]


class Together(Plain):
    """Several uses of one parameter whose gradients add up before they are measured; written down in parts."""

    def __init__(self, pieces: Sequence[Piece], shape: tuple[int, ...], rows: Tensor) -> None:
        self._pieces: Sequence[Piece] = pieces
        self._parts = parts(rows, math.prod(shape))
        self._kept: Tensor | None = None

    @property
    def method(self) -> str:
        return "instantiated"

    def squares(self) -> Tensor:
        if len(self._parts) == 1:
            if self._kept is None:
                self._kept, self._pieces = self.per_sample(slice(None)), ()
            return squared_lengths(self._kept)
        return torch.cat([squared_lengths(self.per_sample(rows)) for rows in self._parts])

    def per_sample(self, rows: slice | Tensor) -> Tensor:
        if self._kept is not None:
            return self._kept[rows]
        total = self._pieces[0].per_sample(rows).clone()
        for piece in self._pieces[1:]:
            total += piece.per_sample(rows)
        return total

    def add_sum(self, factors: Tensor, out: Tensor) -> None:
        for rows in self._parts:
            out.view(-1).addmv_(flat(self.per_sample(rows)).t(), factors[rows])

    def drop(self, kept: Tensor) -> None:
        for piece in self._pieces:
            piece.drop(kept)
        self._kept = None if self._kept is None else kept_rows(self._kept, kept)


def combined(pieces: list[Piece], shape: tuple[int, ...], rows: Tensor) -> list[Piece]:
    """Pieces of one parameter such that their squared norms may be added: gradients of several uses add up first.

    Matrices that were used several times count as one use at all their positions; blocks that do not overlap stay
    apart; anything else is written down and added.

    Args:
        pieces: of the parameter.
        shape: of the parameter.
        rows: numbers of the samples, 0 to n - 1.
    """
    if len(pieces) < 2:
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
    return [Together(pieces, shape, rows)]

"""Clipped sums of per-sample gradients: one forward, one backward, and a weighted sum for every parameter.

    norms -> clip factors -> sums with the factors folded in (Bu et al. 2022, arXiv 2210.00038, "book-keeping")

A sample whose gradient is not finite counts as none at all: its factor is zero, and what it left in activations is
wiped before anything is summed, so that it can neither poison the batch nor give itself away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vambrace.privacy.dp.engine.attention import ATTENTION
from vambrace.privacy.dp.engine.operators import OPERATORS, derive
from vambrace.privacy.dp.engine.pieces import Piece, combined
from vambrace.privacy.dp.engine.rules import LAYERS
from vambrace.privacy.dp.engine.tape import Place, Tape

__all__ = ["Gathered", "clip_and_add", "gather", "new_tape", "square_norms"]

RULES = {**LAYERS, **OPERATORS, **ATTENTION}


@dataclass(slots=True)
class Gathered:
    """What a backward pass left for every parameter.

    Attributes:
        pieces: by parameter; empty where no gradient arrived.
        uses: names of the functions, by parameter.
    """

    pieces: list[list[Piece]]
    uses: list[tuple[str, ...]]


def new_tape(
    count: int, parameters: Sequence[Tensor], names: tuple[str, ...], places: Mapping[tuple[int, int], Place] | None
) -> Tape:
    """A tape for one forward pass of `count` samples."""
    slots = {id(each): slot for slot, each in enumerate(parameters)}
    return Tape(count=count, slots=slots, names=names, places=places, rules=RULES, otherwise=derive)


def gather(tape: Tape, total: Tensor) -> Gathered:
    """Run the backward pass of `total` and collect the pieces of every parameter.

    Raises:
        RuntimeError: for inputs of recorded functions that were changed in place since.
    """
    tape.closed = True
    if total.requires_grad:
        with tape:
            torch.autograd.grad(total, tape.probe, allow_unused=True)
    pieces: list[list[Piece]] = [[] for _ in tape.names]
    uses: list[list[str]] = [[] for _ in tape.names]
    stood_in: list[list[Piece]] = [[] for _ in tape.derived]
    for use in tape.uses:
        use.check(tape.name(use.slot))
        _add(pieces, stood_in, use.slot, use.piece())
    # A derived tensor comes after what it is derived from.
    for number in range(len(tape.derived) - 1, -1, -1):
        if stood_in[number]:
            source = tape.derived[number]
            gradients = combined(stood_in[number])
            total_gradient = gradients[0].per_sample(slice(None))
            for other in gradients[1:]:
                total_gradient = total_gradient + other.per_sample(slice(None))
            for slot, piece in zip(source.slots, source.back(total_gradient), strict=True):
                _add(pieces, stood_in, slot, piece)
    for use in tape.uses:
        for slot in tape.origins(use.slot):
            if use.what not in uses[slot]:
                uses[slot].append(use.what)
    return Gathered([combined(each) if each else [] for each in pieces], [tuple(each) for each in uses])


def square_norms(gathered: Gathered, groups: Sequence[Sequence[int]], count: int, like: Tensor, order: str) -> Tensor:
    """Squared norms (g, n) of the per-sample gradients of every group of parameters; plain l1 norms for order "l1"."""
    found = like.new_zeros(len(groups), count)
    for row, group in zip(found, groups, strict=True):
        for piece in (piece for slot in group for piece in gathered.pieces[slot]):
            row.add_(piece.per_sample(slice(None)).flatten(1).abs().sum(dim=1) if order == "l1" else piece.squares())
    return found


def clip_and_add(
    gathered: Gathered,
    groups: Sequence[Sequence[int]],
    factors_of: Callable[[Tensor], Tensor],
    views: Sequence[Tensor],
    *,
    count: int,
    mask: Tensor | None = None,
    order: Literal["l1", "l2"] = "l2",
) -> tuple[Tensor, Tensor]:
    """Add the clipped sum of a batch to `views`, one a parameter, in place.

    Args:
        gathered: of the batch.
        groups: numbers of the parameters that are clipped together.
        factors_of: norms (g, n) to clip factors (g, n).
        views: what is added to, of the parameters' shapes, float32 or float64.
        count: n.
        mask: bool (n,), which rows are samples; None: all.
        order: the norm that is clipped.

    Returns:
        Norms (g, n) before clipping, and whether (n,) a sample counts: it is no padding and its gradient is finite.
    """
    squares = square_norms(gathered, groups, count, views[0], order)
    norms = squares if order == "l1" else squares.sqrt_()
    counted = norms.isfinite().all(dim=0)
    if mask is not None:
        counted &= mask
    if not bool(counted.all()):
        for pieces in gathered.pieces:
            for piece in pieces:
                piece.drop(counted)
        norms = norms.masked_fill(~counted, 0.0)
    factors = factors_of(norms) * counted
    for row, group in zip(factors, groups, strict=True):
        for slot in group:
            for piece in gathered.pieces[slot]:
                piece.add_sum(row, views[slot])
    return norms, counted


def _add(pieces: list[list[Piece]], stood_in: list[list[Piece]], slot: int, piece: Piece | None) -> None:
    if piece is not None:
        (pieces[slot] if slot >= 0 else stood_in[-slot - 1]).append(piece)

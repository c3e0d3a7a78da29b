"""Clipped sums of per-sample gradients: one forward, one backward, and a weighted sum for every parameter.

    norms -> clip factors -> sums with the factors folded in (Bu et al. 2022, arXiv 2210.00038, "book-keeping")

A sample whose gradient is not finite counts as none at all: its factor is zero, and what it left in activations is
wiped before anything is summed, so that it can neither poison the batch nor give itself away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vambrace.privacy.dp.engine.attention import ATTENTION
from vambrace.privacy.dp.engine.exact import Exact
from vambrace.privacy.dp.engine.norms import NORMS
from vambrace.privacy.dp.engine.operators import OPERATORS, derive
from vambrace.privacy.dp.engine.pieces import Piece, flat
from vambrace.privacy.dp.engine.products import parts, settle
from vambrace.privacy.dp.engine.recurrent import RECURRENT
from vambrace.privacy.dp.engine.rules import LAYERS
from vambrace.privacy.dp.engine.tape import Places, Tape
from vambrace.privacy.dp.engine.together import combined

__all__ = ["Gathered", "clip_and_add", "gather", "new_tape"]

RULES = {**LAYERS, **NORMS, **OPERATORS, **ATTENTION, **RECURRENT}


@dataclass(slots=True)
class Gathered:
    """What a backward pass left for every parameter.

    Attributes:
        pieces: by parameter; empty where no gradient arrived.
        uses: names of the functions, by parameter.
    """

    pieces: list[list[Piece]]
    uses: list[tuple[str, ...]]


def new_tape(count: int, parameters: Sequence[Tensor], names: tuple[str, ...], places: Places | None) -> Tape:
    """A tape for one forward pass of `count` samples."""
    slots = {id(each): slot for slot, each in enumerate(parameters)}
    return Tape(count=count, slots=slots, names=names, places=places, rules=RULES, otherwise=derive)


def gather(tape: Tape, total: Tensor, parameters: Sequence[Tensor]) -> Gathered:
    """Run the backward pass of `total` and collect the pieces of every parameter.

    Raises:
        NoRule: see `Tape.backward`.
    """
    tape.backward(total, parameters)
    pieces: list[list[Piece]] = [[] for _ in tape.names]
    uses: list[list[str]] = [[] for _ in tape.names]
    stood_in: list[list[Piece]] = [[] for _ in tape.derived]

    def add(slot: int, piece: Piece | None) -> None:
        if piece is not None:
            (pieces[slot] if slot >= 0 else stood_in[-slot - 1]).append(piece)

    with Exact(total.device):
        rows = torch.arange(tape.count, device=total.device)
        for use in tape.uses:
            add(use.slot, use.piece())
            for slot in tape.origins(use.slot):
                if use.what not in uses[slot]:
                    uses[slot].append(use.what)
        # A derived tensor comes after what it is derived from.
        for source, found in zip(reversed(tape.derived), reversed(stood_in), strict=True):
            if found:
                gradients = sum(
                    (piece.per_sample(slice(None)) for piece in found[1:]), start=found[0].per_sample(slice(None))
                )
                for slot, piece in zip(source.slots, source.back(gradients), strict=True):
                    add(slot, piece)
        own = [combined(each, tuple(of.shape), rows) for each, of in zip(pieces, parameters, strict=True)]
    return Gathered(own, [tuple(each) for each in uses])


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
    with Exact(views[0].device):
        norms = (
            _absolute_norms(gathered, groups, count, views) if order == "l1" else _norms(gathered, groups, count, views)
        )
        finite = norms.isfinite().all(dim=0)
        counted = finite if mask is None else finite & mask
        if not bool(counted.all()):
            # Padding with a finite norm is finite, and times zero: wiping it would copy all activations.
            if not bool(finite.all()):
                for piece in (piece for pieces in gathered.pieces for piece in pieces):
                    piece.drop(counted)
            norms = norms.masked_fill(~counted, 0.0)
        factors = factors_of(norms) * counted
        for row, group in zip(factors, groups, strict=True):
            for slot in group:
                if order == "l1":
                    _add_written(gathered.pieces[slot], row, views[slot])
                    continue
                for piece in gathered.pieces[slot]:
                    piece.add_sum(row, views[slot])
    return norms, counted


def _norms(gathered: Gathered, groups: Sequence[Sequence[int]], count: int, views: Sequence[Tensor]) -> Tensor:
    """L2 norms (g, n) of the per-sample gradients of every group of parameters."""
    members = [[piece for slot in group for piece in gathered.pieces[slot]] for group in groups]
    measured = [[piece.squares() for piece in group] for group in members]
    if settle(piece for group in members for piece in group):
        measured = [[piece.squares() for piece in group] for group in members]
    found = views[0].new_zeros(len(groups), count)
    for row, squares in zip(found, measured, strict=True):
        for each in squares:
            row.add_(each)
    return found.sqrt_()


def _absolute_norms(gathered: Gathered, groups: Sequence[Sequence[int]], count: int, views: Sequence[Tensor]) -> Tensor:
    """L1 norms (g, n). Blocks of one parameter do not overlap, so theirs add up."""
    found = views[0].new_zeros(len(groups), count)
    for row, group in zip(found, groups, strict=True):
        for slot in group:
            for piece in gathered.pieces[slot]:
                for rows in parts(torch.arange(count, device=row.device), views[slot].numel()):
                    row[rows] += flat(piece.per_sample(rows)).abs().sum(dim=1)
    return found


def _add_written(pieces: Sequence[Piece], factors: Tensor, out: Tensor) -> None:
    """What has been measured as it was written down is added as it is written down."""
    for piece in pieces:
        for rows in parts(torch.arange(len(factors), device=out.device), out.numel()):
            out.view(-1).addmv_(flat(piece.per_sample(rows)).t(), factors[rows])

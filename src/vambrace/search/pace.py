"""How often the loop looks at what happened, and the shapes it lets the model see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vambrace.core.access import Access

if TYPE_CHECKING:
    from vambrace.models.contract import Model

__all__ = ["Pace", "bucket", "choose_pace"]

_LOOK_EVERY = 8
_CONFIRM_ROWS, _EAGER_CONFIRM_ROWS = 16, 4
_PENDING_SHARE = 0.125
_VACANT_SHARE = 0.25
_PATIENCE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What may change cost and never an outcome.

    Attributes:
        look_every: steps between two looks of the host at the rows. On CPU a look is free; elsewhere it makes the host
            wait for the device.
        confirm_rows: shape of a verification forward, the same for every sample of a run.
        pending_share: rows are verified, restarted and replaced once this share of them waits for it.
        vacant_share: the batch shrinks once this share of its rows is empty and no sample waits.
        padded: whether the model may be asked about copies that belong to no sample, to keep shapes few.
        patience: rows are also verified, restarted and replaced once those that wait went along so many times in all.
    """

    look_every: int
    confirm_rows: int
    pending_share: float
    vacant_share: float
    padded: bool
    patience: int = _PATIENCE


def choose_pace(model: Model, device_type: str, batch_size: int, *, gradient: bool = True) -> Pace:
    """The pace for a model: one that counts queries is never asked an idle or padding row.

    A search of thousands of forwards without gradients is not asked idle rows on CPU either: there are few settlements
    for so many steps, and each row that waits for one would be carried through hundreds of them. Its claims come one by
    one then, and are verified in a smaller shape.
    """
    if model.access < Access.GRADIENTS:
        return Pace(
            look_every=1, confirm_rows=batch_size, pending_share=0.0, vacant_share=0.0, patience=0, padded=False
        )
    eager = device_type == "cpu" and not gradient
    return Pace(
        look_every=1 if device_type == "cpu" else _LOOK_EVERY,
        confirm_rows=min(_EAGER_CONFIRM_ROWS if eager else _CONFIRM_ROWS, batch_size),
        pending_share=0.0 if eager else _PENDING_SHARE,
        vacant_share=0.0 if eager else _VACANT_SHARE,
        padded=True,
    )


def bucket(rows: int, most: int) -> int:
    """The shape that a batch of `rows` shrinks to: sixteen sizes an octave, so that few shapes occur, at most `most`.

    >>> [bucket(rows, 64) for rows in (1, 15, 17, 33, 63, 64)]
    [1, 15, 17, 34, 64, 64]
    """
    grain = 1 << max(0, rows.bit_length() - 5)
    return min(most, -(-rows // grain) * grain)

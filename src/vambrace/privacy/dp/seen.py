"""What steps looked like: counts that the trainer needs, and diagnostics that are not private."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.privacy.dp.engine.engine import Added

__all__ = ["LOOKED_AT", "Seen", "seen", "tallied", "uncut"]

LOOKED_AT = ("batch sizes", "samples without a finite gradient", "share of samples that were cut", "training loss")
"""The fields of `Seen` in words, for the privacy statement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one step looked like. NOT private: every number depends on the data and none is charged.

    Attributes:
        samples: in the batch, over all ranks.
        dropped: samples without a finite gradient, which counted for nothing.
        clipped: share of the others whose gradient was cut; nan where there are none.
        loss: their mean loss; nan where there are none, or it is not known.
    """

    samples: int
    dropped: int
    clipped: float
    loss: float


def tallied(added: Added, mask: Tensor | None, bounds: tuple[float, ...]) -> Tensor:
    """Samples, those that count and were not cut, those dropped, and the sum of losses: (4,) float64."""
    counted = added.counted
    cut = (added.norms > added.norms.new_tensor(bounds).unsqueeze(1)).any(dim=0)
    samples = counted.new_tensor(counted.numel(), dtype=torch.int64) if mask is None else mask.sum()
    lost = samples.new_tensor(math.nan, dtype=torch.float64)
    losses = lost if added.losses is None else torch.where(counted, added.losses, 0.0).sum()
    return torch.stack([each.double() for each in (samples, (counted & ~cut).sum(), samples - counted.sum(), losses)])


def seen(tally: Tensor) -> Seen:
    """A tally as a person reads it."""
    samples, whole, dropped, losses = cast("list[float]", tally.tolist())
    counted = samples - dropped
    clipped, loss = (1.0 - whole / counted, losses / counted) if counted else (math.nan, math.nan)
    return Seen(samples=int(samples), dropped=int(dropped), clipped=clipped, loss=loss)


def uncut(tally: Tensor) -> float:
    """How many samples were not cut, less half of those that count: one sample moves it by one half, either way."""
    samples, whole, dropped, _ = cast("list[float]", tally.tolist())
    return whole - 0.5 * (samples - dropped)

"""The rows of the physical batch: which sample sits where, how it stands, and what its rule remembers."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field, fields
from typing import TYPE_CHECKING

import torch

from vambrace.ops.rows import assign, spread

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from vambrace.search.rule import Tensors

__all__ = ["BROKEN", "CLAIMED", "ENDED", "LIVE", "Slots", "VACANT"]

VACANT, LIVE, CLAIMED, ENDED, BROKEN = range(5)
"""Status of a row: no sample; searching; a success waits for verification; a restart is over; logits not finite."""


@dataclass(slots=True, eq=False, kw_only=True)
class Slots:
    """m rows. Everything lies along the first dimension, so that rows move by indexing.

    Attributes:
        index: int64 (m,), the sample's position in the problem; a row that holds none names any valid one.
        anchor: what the rule keeps of a sample for good.
        state: what it changes; holds "point".
        status: int8 (m,).
        step: int64 (m,), steps taken in this restart.
        restart: int64 (m,), number of this restart.
        past: int64 (m,), steps taken in the restarts before.
        retry: bool (m,), whether the point was claimed and refused: its next evaluation is no claim and not logical.
        margin: float64 (m,), the goal's margin where the row was last noted with finite logits; NaN before.
        score: float64 (m,), how good the kept point is (its margin, or its negative distance); -inf: none yet.
        best: (m, ...), the kept point; empty where the rule keeps the last one.
        met: int64 (m,), logical forwards when the kept point, or the verified success, was seen.
        checks: int64 (m,), verifications.
        zeros: int64 (m,), steps without any gradient.
    """

    index: Tensor
    anchor: dict[str, Tensor]
    state: dict[str, Tensor]
    keeping: InitVar[bool] = False
    status: Tensor = field(init=False)
    step: Tensor = field(init=False)
    restart: Tensor = field(init=False)
    past: Tensor = field(init=False)
    retry: Tensor = field(init=False)
    margin: Tensor = field(init=False)
    score: Tensor = field(init=False)
    best: Tensor = field(init=False)
    met: Tensor = field(init=False)
    checks: Tensor = field(init=False)
    zeros: Tensor = field(init=False)

    def __post_init__(self, keeping: bool) -> None:
        self.status = torch.full_like(self.index, LIVE, dtype=torch.int8)
        self.retry = torch.zeros_like(self.index, dtype=torch.bool)
        self.margin = torch.full_like(self.index, float("nan"), dtype=torch.float64)
        self.score = torch.full_like(self.margin, float("-inf"))
        point = self.state["point"]
        self.best = point.clone() if keeping else point.new_empty(len(point), 0)
        for name in ("step", "restart", "past", "checks", "zeros", "met"):
            setattr(self, name, torch.zeros_like(self.index))

    def __len__(self) -> int:
        return self.index.shape[0]

    @property
    def taken_steps(self) -> Tensor:
        """int64 (m,), steps taken in all restarts."""
        return self.past + self.step

    def put(self, rows: Tensor, other: Slots) -> None:
        """Overwrite the rows `rows` (k,) by all k rows of `other`."""
        for name in _columns():
            getattr(self, name)[rows] = getattr(other, name)
        for mine, theirs in ((self.anchor, other.anchor), (self.state, other.state)):
            for name, tensor in mine.items():
                tensor[rows] = theirs[name]

    def taken(self, rows: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Anchors and states of some rows, as copies."""
        anchor = {name: tensor[rows] for name, tensor in self.anchor.items()}
        return anchor, {name: tensor[rows] for name, tensor in self.state.items()}

    def better(self, chosen: Tensor, score: Tensor, met: Tensor) -> None:
        """Keep the present points of the rows `chosen`, bool (m,), with their scores and when they were seen."""
        assign(self.best, chosen, self.state["point"])
        self.score = torch.where(chosen, score, self.score)
        self.met = torch.where(chosen, met, self.met)

    def shrink(self, rows: Tensor) -> None:
        """Keep only the rows `rows`, in that order."""
        for name in _columns():
            setattr(self, name, getattr(self, name)[rows])
        self.anchor = {name: tensor[rows] for name, tensor in self.anchor.items()}
        self.state = {name: tensor[rows] for name, tensor in self.state.items()}

    def hold(self, moving: Tensor, still: Tensor | None, step: Callable[[], Tensors]) -> None:
        """Take the state that `step` gives, but only for the rows that move; the others keep theirs.

        Args:
            moving: bool (m,).
            still: int64, the rows that do not move; None where asking would make the host wait for the device.
            step: may overwrite the tensors of the state.
        """
        before = self.state
        if still is None:
            kept = {name: tensor.clone() for name, tensor in before.items()}
            after = step()
            self.state = {
                name: torch.where(spread(moving, tensor), after[name], tensor) for name, tensor in kept.items()
            }
            return
        kept = {name: tensor[still] for name, tensor in before.items()} if still.numel() else {}
        self.state = dict(step())
        for name, tensor in kept.items():
            self.state[name][still] = tensor


def _columns() -> list[str]:
    return [each.name for each in fields(Slots) if each.name not in ("anchor", "state")]

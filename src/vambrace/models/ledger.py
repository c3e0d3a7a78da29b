"""Who was charged for what: exact per-sample counts of model work, kept as tensors so that counting costs no loop.

>>> import torch
>>> ledger = Ledger()
>>> ledger.charge("forwards", torch.tensor([7, 9, 7]))
>>> ledger.per_sample()
{7: Charge(forwards=2, backwards=0, queries=0), 9: Charge(forwards=1, backwards=0, queries=0)}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Charge", "Kind", "Ledger"]

Kind = Literal["forwards", "backwards", "queries"]
_KINDS: tuple[Kind, ...] = ("forwards", "backwards", "queries")
_PENDING = 256


@dataclass(frozen=True, slots=True)
class Charge:
    """What one sample cost, in rows through the model."""

    forwards: int = 0
    backwards: int = 0
    queries: int = 0


class Ledger:
    """Counts by sample id. Negative ids (padding, idle rows) belong to nobody and are not entered."""

    def __init__(self) -> None:
        self._ids = torch.empty(0, dtype=torch.int64)
        self._counts = torch.empty(0, len(_KINDS), dtype=torch.int64)
        self._pending: list[tuple[int, Tensor]] = []

    def charge(self, kind: Kind, ids: Tensor) -> None:
        """One more row of `kind` for each id (n,); an id that occurs twice is charged twice."""
        self._pending.append((_KINDS.index(kind), ids))
        if len(self._pending) >= _PENDING:
            self._settle()

    def per_sample(self) -> dict[int, Charge]:
        """Every charged sample id with its counts, in order of id."""
        self._settle()
        ids, counts = cast("list[int]", self._ids.tolist()), cast("list[list[int]]", self._counts.tolist())
        return {sample: Charge(*row) for sample, row in zip(ids, counts, strict=True)}

    def counts(self, kind: Kind, ids: Tensor) -> Tensor:
        """How many rows of `kind` each id (n,) was charged, int64 (n,) on the ids' device; 0 for an unknown id."""
        self._settle()
        asked = ids.detach().to("cpu", torch.int64)
        if len(self._ids) == 0:
            return torch.zeros_like(ids, dtype=torch.int64)
        place = torch.searchsorted(self._ids, asked).clamp(max=len(self._ids) - 1)
        found = self._counts[place, _KINDS.index(kind)] * (self._ids[place] == asked)
        return found.to(ids.device)

    def _settle(self) -> None:
        """Fold pending charges into the sorted table."""
        if not self._pending:
            return
        ids = torch.cat([part.detach().to("cpu", torch.int64) for _, part in self._pending])
        kinds = torch.cat([torch.full((len(part),), kind) for kind, part in self._pending])
        self._pending = []
        known = ids >= 0
        ids, kinds = ids[known], kinds[known]
        everyone = torch.cat([self._ids, ids])
        merged, place = cast("tuple[Tensor, Tensor]", torch.unique(everyone, return_inverse=True))
        counts = torch.zeros(len(merged), len(_KINDS), dtype=torch.int64)
        counts[place[: len(self._ids)]] = self._counts
        counts.index_put_((place[len(self._ids) :], kinds), torch.ones_like(kinds), accumulate=True)
        self._ids, self._counts = merged, counts

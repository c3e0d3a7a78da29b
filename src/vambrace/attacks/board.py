"""What several searches over the same samples have found together: the ledger, the broken, the best points so far."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, cast

import torch

from vambrace.attacks.operators import Burst
from vambrace.core.access import Access
from vambrace.core.findings import Cost
from vambrace.ops.norms import distances
from vambrace.search.judge import Oracle
from vambrace.search.loop import search
from vambrace.search.outcome import Attacked, Part

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.attacks.ball import Ball
    from vambrace.search.problem import Problem

__all__ = ["Board"]

_NOBODY = Part(name="", attacked=0, broken=0, cost=Cost())
_SUMMED = ("forwards", "backwards", "verifications", "queries", "zero_gradients")


class Board:
    """Columns over the n samples of a problem, filled in search by search.

    Attributes:
        problem: the samples.
        best: (n, ...), the adversarial point where broken, else the allowed point of the highest margin so far.
        margin: float32 (n,), at `best`; NaN where no search has looked yet.
        success: bool (n,).
        finite: bool (n,).

    Args:
        problem: checked arguments.
        ball: where points may be; what a search found outside of it is not kept.
    """

    def __init__(self, problem: Problem, ball: Ball) -> None:
        count, device = len(problem.inputs), problem.inputs.device
        self.problem = problem
        self._ball = ball
        self.best = problem.inputs.clone()
        self.margin = torch.full((count,), float("nan"), device=device)
        self.success = torch.zeros(count, dtype=torch.bool, device=device)
        self.finite = torch.ones_like(self.success)
        self._first = torch.full((count,), -1, dtype=torch.int64, device=device)
        self._by = self._first.clone()
        self._spent = {name: torch.zeros_like(self._first) for name in _SUMMED}
        self._parts: dict[str, Part] = {}

    @property
    def alive(self) -> Tensor:
        """int64, positions of the samples that are neither broken nor unmeasured."""
        return (~self.success & self.finite).nonzero().squeeze(1)

    @property
    def blind(self) -> Tensor:
        """Bool (n,): whether the input gradient was zero at half of a sample's steps so far or more, and it had any."""
        backwards = self._spent["backwards"]
        return (backwards > 0) & (2 * self._spent["zero_gradients"] >= backwards)

    @property
    def parts(self) -> tuple[Part, ...]:
        """What each search did, in the order of their first turns."""
        return tuple(self._parts.values())

    @property
    def spent(self) -> int:
        """Forwards, backwards and verifications so far."""
        return sum(part.cost.forwards + part.cost.backwards + part.cost.verifications for part in self.parts)

    def look(self) -> Tensor:
        """Ask once about every input itself, verify what reaches the goal already, and hand back the logits (n, k)."""
        problem = self.problem
        oracle, count = Oracle(problem.model, problem.most_class), len(problem.inputs)
        device = problem.inputs.device.type
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(device, enabled=False):
            parts = cast("tuple[Tensor, ...]", problem.inputs.split(problem.batch_size))
            logits = torch.cat([oracle.logits(part, exact=True) for part in parts])
        finite = logits.isfinite().all(dim=1)
        self.margin = torch.where(finite, problem.goal.margin(logits).float(), self.margin)
        self.finite &= finite
        self._spent["forwards"] += 1
        queries = count if problem.model.access < Access.GRADIENTS else 0
        if queries:
            self._spent["queries"] += 1
        cost = Cost(forwards=count, queries=queries)
        self._parts["clean"] = Part(name="clean", attacked=count, broken=0, cost=cost)
        reached = self.alive[self.margin[self.alive] > 0]
        if len(reached):
            here = Burst(ball=self._ball, loss="margin", steps=0)
            found = search(dataclasses.replace(problem.take(reached), start=None), here)
            self.add("clean", reached, found, again=True)
        return logits

    def add(self, name: str, index: Tensor, found: Attacked, *, again: bool = False, black_box: bool = False) -> int:
        """Keep what a search over the samples at `index`, int64 (m,), found; how many it broke.

        Args:
            name: whose part of the ledger it belongs to.
            index: distinct positions of samples that were alive.
            found: their outcome, in that order.
            again: whether the same part has counted these samples as attacked already.
            black_box: whether the search asked for no gradients.
        """
        before = self._spent["forwards"][index]
        self._pay(index, found)
        self.finite[index] &= found.finite
        inside = found.distance <= self._ball.eps
        better = found.success | (inside & ~(found.margin <= self.margin[index]))
        rows, places = better.nonzero().squeeze(1), index[better]
        self.best[places] = found.adversarial[rows]
        self.margin[places] = found.margin[rows]
        won = index[found.success]
        self.success[won] = True
        self._first[won] = (before + found.first_success)[found.success]
        broken = len(won)
        self._enter(name, 0 if again else len(index), found, broken=broken, black_box=black_box)
        self._by[won] = list(self._parts).index(name)
        return broken

    def ask_again(self, name: str, index: Tensor, found: Attacked) -> Tensor:
        """Count what attacks with gradients find on samples that black-box attacks have broken.

        Args:
            name: whose part of the ledger it belongs to.
            index: distinct positions of broken samples.
            found: their outcome, in that order.

        Returns:
            int64, positions of those that were not found.
        """
        self._pay(index, found)
        self._enter(name, len(index), found)
        parts = self.parts
        for place in cast("list[int]", self._by[index[found.success]].tolist()):
            part = self._parts[parts[place].name]
            self._parts[part.name] = dataclasses.replace(part, regained=part.regained + 1)
        return index[~found.success]

    def beyond(self) -> Tensor:
        """int64, positions of the samples that a black-box attack broke."""
        free = torch.tensor([part.black_box for part in (*self.parts, _NOBODY)], device=self._by.device)
        return free[self._by].nonzero().squeeze(1)

    def _pay(self, index: Tensor, found: Attacked) -> None:
        for column, total in self._spent.items():
            total[index] += getattr(found, column)

    def _enter(self, name: str, attacked: int, found: Attacked, *, broken: int = 0, black_box: bool = False) -> None:
        old = self._parts.get(name, Part(name=name, attacked=0, broken=0, cost=Cost(), black_box=black_box))
        self._parts[name] = dataclasses.replace(
            old, attacked=old.attacked + attacked, broken=old.broken + broken, cost=old.cost + found.cost
        )

    def outcome(self, allowance: int | None = None, stopped: str = "") -> Attacked:
        """Everything as the caller gets it."""
        return Attacked(
            adversarial=self.best,
            success=self.success,
            norm=self._ball.norm,
            distance=distances(self.best, self.problem.inputs, self._ball.norm),
            margin=self.margin,
            first_success=self._first,
            finite=self.finite,
            cost=sum((part.cost for part in self.parts), Cost()),
            parts=self.parts,
            by=self._by,
            allowance=allowance,
            stopped=stopped,
            **self._spent,
        )

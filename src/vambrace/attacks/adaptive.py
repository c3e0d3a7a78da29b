"""The adaptive search: as strong as a fixed ensemble of attacks, for a small part of its model calls.

    >>> from vambrace.attacks.adaptive import Adaptive
    >>> Adaptive(norm="linf", eps=8 / 255).budget
    320

A fixed ensemble spends most of its calls on samples that nobody breaks. This one starts with a short burst on every
sample, and then moves its budget to where samples break: rounds of short moves on the few of the highest margin, with
moves chosen by what they broke for what they cost (`vambrace.attacks.shares`). It stops by rule:

1. Rounds end when the last `patience` rows a survivor broke nothing: with half a success as the estimate of what such
   a stretch breaks, as many again are expected to break less than one sample. Or when the budget, less what is set
   aside for the rest, is spent.
2. Verification: one cross entropy burst on every survivor, those included that no round looked at.
3. Tail: long searches with windows from the best point, on the survivors of the highest margin; on twice as many when
   that broke any, as it does where gradients are masked.
4. Where 1, 2 or 3 broke anything and budget is left, all of it again.

A budget that does not pay for 2 or 3 leaves them out: `parts` says which ran.

What each part attacked, broke and cost is in `parts` of the outcome, what it was allowed in `allowance`. A sample's
outcome depends on the others, whose margins compete for the budget (`joint`); an equal set gives an equal outcome in
any order. When not: where every sample must get the same work, use `Standard`.

The idea of moving budget by margin is that of Liu et al. 2022, arXiv 2203.05154; the moves, shares and rules are ours.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from vambrace.attacks.ball import Ball
from vambrace.attacks.board import Board
from vambrace.attacks.fixed import FixedRadius, require_option
from vambrace.attacks.operators import Burst, Toward, Windows
from vambrace.attacks.shares import Shares
from vambrace.core.goals import Targeted, Untargeted
from vambrace.core.options import Norm
from vambrace.core.progress import silent
from vambrace.search.loop import search

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from vambrace.core.progress import Progress
    from vambrace.core.rng import Streams
    from vambrace.search.outcome import Attacked
    from vambrace.search.problem import Problem
    from vambrace.search.rule import Rule

__all__ = ["Adaptive"]

_FIRST_STEPS, _STEPS, _SPREADING = 5, 15, 5
_WINDOW_STEPS, _AFTER_STEPS = 20, 10
_SHARE, _LEAST = 0.04, 8
"""Of the survivors, how many a round looks at, and at least how many."""
_TRIED = 0.003
"""How far down the ranking, as a share of the survivors, a try moves a sample."""
_FEW = 10
_TAIL_SHARE, _TAIL_LEAST, _TAIL_STEPS = 0.15, 4, 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptive(FixedRadius):
    """Moves its budget to the samples that are nearest to breaking, and stops when nothing more is expected.

    Attributes:
        norm: what `eps` is measured in.
        eps: radius in the units of the inputs.
        budget: forwards, backwards and verifications that an input may cost, on the average over all inputs.
        patience: rows a survivor, of whom at least 10 are counted, without any success, that end the rounds.
    """

    name: ClassVar[str] = "adaptive"
    norms: ClassVar[tuple[Norm, ...]] = ("l1", "l2", "linf")
    joint: ClassVar[bool] = True
    reuses: ClassVar[bool] = True
    budget: int = 320
    patience: int = 50

    def __post_init__(self) -> None:
        FixedRadius.__post_init__(self)
        require_option(self.budget >= 2, "budget", self.budget, "2 or more: less does not pay for one step")
        require_option(self.patience >= 1, "patience", self.patience, "1 or more")

    def run(self, problem: Problem, *, progress: Progress = silent) -> Attacked:
        """Clean pass, burst, rounds, verification, tail."""
        # In the order of ids, so that an equal set is an equal problem.
        order = problem.ids.argsort()
        count = len(problem.inputs)
        progress.start(self.name, count)
        try:
            found = _Run(self, problem.take(order), lambda done: progress.advance(self.name, done)).outcome()
        finally:
            progress.finish(self.name)
        back = torch.empty_like(order).scatter_(0, order, torch.arange(count, device=order.device))
        columns = {
            field.name: getattr(found, field.name)[back]
            for field in dataclasses.fields(found)
            if isinstance(getattr(found, field.name), torch.Tensor)
        }
        return dataclasses.replace(found, **columns)


class _Run:
    """One call: the board, the shares, and what the rounds look at."""

    def __init__(self, options: Adaptive, problem: Problem, advance: Callable[[int], None]) -> None:
        self._options = options
        self._start = problem.start
        self._problem = problem = dataclasses.replace(problem, start=None)
        self._advance = advance
        self._ball = Ball(norm=options.norm, eps=options.eps)
        self._board = Board(problem, self._ball)
        self._allowance = options.budget * len(problem.inputs)
        self._tries = torch.zeros_like(problem.ids)
        self._turn = 0
        self._classes = 0
        self._ranks: Tensor | None = None  # classes other than the label, by their logits at the input

    def outcome(self) -> Attacked:
        """Everything that was found."""
        if len(self._problem.inputs):
            self._clean()
        alive = self._board.alive
        if self._start is not None and len(alive):
            self._go("start", alive, Burst(ball=self._ball, loss="margin", steps=0), start=self._start[alive])
        if len(self._board.alive) and self._options.eps:
            self._first()
            shares = Shares(tuple(self._moves()))
            while self._rounds(shares) + self._verification() + self._tail() and self._affords(_STEPS):
                pass
        return self._board.outcome(self._allowance)

    def _clean(self) -> None:
        """Which classes are near each input, and which inputs are wrong already."""
        goal, logits = self._problem.goal, self._board.look()
        self._classes = logits.shape[1]
        if isinstance(goal, Untargeted):
            others = logits.scatter(1, goal.labels.unsqueeze(1), float("-inf"))
            self._ranks = others.argsort(dim=1, descending=True)[:, :-1]

    def _first(self) -> None:
        """A short burst on every sample, or on those of the highest margin where the budget does not last for all."""
        alive, cost = self._board.alive, 2 * _FIRST_STEPS + 2
        ranked = alive[self._board.margin[alive].argsort(descending=True, stable=True)]
        afforded = ranked[: max(0, self._allowance - self._board.spent) // cost]
        if len(afforded):
            self._burst("burst", afforded.sort().values, "margin", _FIRST_STEPS)

    def _moves(self) -> dict[str, Callable[[Tensor], int]]:
        moves: dict[str, Callable[[Tensor], int]] = {
            "windows": self._windows,
            "margin": lambda index: self._burst("margin", index, "margin", _STEPS),
            "diverse": lambda index: self._burst("diverse", index, "margin", _STEPS + _SPREADING, _SPREADING),
        }
        if isinstance(self._problem.goal, Untargeted | Targeted):
            moves["ce"] = lambda index: self._burst("ce", index, "ce", _STEPS)
        if self._ranks is not None and self._classes > 2:
            moves["toward"] = self._toward
        return moves

    def _rounds(self, shares: Shares) -> int:
        """Moves on the samples of the highest margin until nothing more is expected; how many samples they broke."""
        board, moves = self._board, self._moves()
        dry, broken = 0, 0
        while len(board.alive) and dry < self._options.patience * max(_FEW, len(board.alive)):
            chosen = self._chosen()
            if not self._affords(2 * (_STEPS + _SPREADING) + 2, len(chosen), reserve=self._reserve()):
                break
            before, name = board.spent, shares.choose(self._stream().child("share"))
            found = moves[name](chosen)
            self._tries[chosen] += 1
            shares.record(name, broken=found, cost=board.spent - before)
            broken += found
            dry = 0 if found else dry + board.spent - before
        return broken

    def _chosen(self) -> Tensor:
        """Positions of the samples that the next round looks at."""
        alive, board = self._board.alive, self._board
        count = max(_LEAST, math.ceil(_SHARE * len(alive)))
        rank = torch.empty(len(alive), dtype=torch.float64, device=alive.device)
        rank[board.margin[alive].argsort(descending=True, stable=True)] = torch.arange(
            len(alive), dtype=torch.float64, device=alive.device
        )
        return alive[(rank / len(alive) + _TRIED * self._tries[alive]).argsort(stable=True)[:count]]

    def _verification(self) -> int:
        alive = self._board.alive
        if not len(alive) or not self._affords(2 * _STEPS + 2, len(alive)):
            return 0
        loss: Literal["ce", "margin"] = "ce" if isinstance(self._problem.goal, Untargeted | Targeted) else "margin"
        return self._burst("verification", alive, loss, _STEPS)

    def _tail(self) -> int:
        """Long searches with windows on the survivors of the highest margin; how many samples they broke."""
        share, broken = _TAIL_SHARE, 0
        while len(self._board.alive):
            alive = self._board.alive
            ranked = alive[self._board.margin[alive].argsort(descending=True, stable=True)]
            index = ranked[: max(_TAIL_LEAST, math.ceil(share * len(alive)))]
            if not self._affords(_TAIL_STEPS + 2, len(index)):
                break
            found = self._go("tail", index, Windows(ball=self._ball, steps=_TAIL_STEPS), start=self._board.best[index])
            broken += found
            if not found or share >= 1:
                break
            share *= 2
        return broken

    def _windows(self, index: Tensor) -> int:
        """Small windows from the best point, then a burst from beside the new best."""
        steep = Burst(ball=self._ball, loss="margin", steps=_AFTER_STEPS, noise=True)
        found = self._go("windows", index, Windows(ball=self._ball, steps=_WINDOW_STEPS), start=self._board.best[index])
        left = index[~self._board.success[index] & self._board.finite[index]]
        return found + (self._go("windows-burst", left, steep, start=self._board.best[left]) if len(left) else 0)

    def _toward(self, index: Tensor) -> int:
        """A burst towards one class, the next one by the logits of the input at every try."""
        assert self._ranks is not None
        goal = self._problem.goal
        assert isinstance(goal, Untargeted)
        place = self._tries[index] % min(9, self._ranks.shape[1])
        targets = self._ranks[index].gather(1, place.unsqueeze(1)).squeeze(1)
        part = dataclasses.replace(self._part(index), goal=Toward(goal.labels[index], targets))
        return self._searched("toward", index, part, Burst(ball=self._ball, loss="toward", steps=_STEPS))

    def _burst(self, name: str, index: Tensor, loss: Literal["ce", "margin"], steps: int, spreading: int = 0) -> int:
        rule = Burst(ball=self._ball, loss=loss, steps=steps, spreading=spreading, classes=self._classes)
        return self._go(name, index, rule)

    def _go(self, name: str, index: Tensor, rule: Rule, start: Tensor | None = None) -> int:
        return self._searched(name, index, dataclasses.replace(self._part(index), start=start), rule)

    def _searched(self, name: str, index: Tensor, part: Problem, rule: Rule) -> int:
        broken = self._board.add(name, index, search(part, rule, name=name), black_box=name == "tail")
        self._advance(broken)
        return broken

    def _part(self, index: Tensor) -> Problem:
        return dataclasses.replace(self._problem.take(index), rng=self._stream())

    def _stream(self) -> Streams:
        self._turn += 1
        return self._problem.rng.child("turn", self._turn)

    def _reserve(self) -> int:
        """Rows set aside for one verification and one tail."""
        alive = len(self._board.alive)
        return alive * (2 * _STEPS + 2) + math.ceil(_TAIL_SHARE * alive) * (_TAIL_STEPS + 2)

    def _affords(self, rows: int, samples: int = 1, *, reserve: int = 0) -> bool:
        return self._board.spent + rows * samples + reserve <= self._allowance

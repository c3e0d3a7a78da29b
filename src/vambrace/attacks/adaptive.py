"""The adaptive search: as strong as a fixed ensemble of attacks, for a small part of its model calls.

    >>> from vambrace.attacks.adaptive import Adaptive
    >>> Adaptive(norm="linf", eps=8 / 255).budget
    340

A fixed ensemble spends most of its calls on samples that nobody breaks. This one starts with a short burst on every
sample, and then moves its budget to where samples break: rounds of short moves on the few of the highest margin, with
moves chosen by what they broke for what they cost (`vambrace.attacks.shares`).

Where the burst met hardly any gradient (zero at half of its steps, on most survivors), nearly all of the budget goes to
random search from scratch at once (`vambrace.attacks.square`); then all goes on as elsewhere. It stops by rule:

1. Rounds end when the last `patience` rows a survivor broke nothing: with half a success as the estimate of what such
   a stretch breaks, as many again are expected to break less than one sample. Or when the budget, less what is set
   aside for the rest, is spent.
2. Verification: one cross entropy burst on every survivor, those included that no round looked at.
3. Tail: long searches with windows on the survivors of the highest margin; on twice as many when that broke any, as it
   does where gradients are masked.
4. Where 2 or 3 broke anything and budget is left, all of it again. Where not, what the budget allows of bursts toward
   one class, the nearest first, on every survivor: rounds aim at few samples, and a burst that climbs to the nearest
   class never gets to another. After three classes in a row that break nothing the search ends, else all of it again.
5. What windows alone have broken is attacked again by following gradients. Where that fails too often, gradients
   mislead, and `vambrace.attacks.flags` says so (E467).
6. Escalation, where all that is no measure: survivors that showed no gradient, if too many did not (E464), or all of
   them, if gradients mislead (E467) and moves that follow them broke no more than those that do not, are each searched
   at random from scratch for `escalation` queries, as the standard ensemble does it, and 3 comes once more. That is
   beside the budget: what random search breaks of such a model is spread over thousands of queries.

A budget that does not pay for 2 leaves out 3 also: `parts` says which ran, `stopped` why the search ended: "broken"
(no sample is left), "patience" (nothing more is expected) or "budget" (something was left out).

What each part attacked, broke and cost is in `parts` of the outcome, what it was allowed in `allowance`. A sample's
outcome depends on the others, whose margins compete for the budget (`joint`); an equal set gives an equal outcome in
any order. When not: where every sample must get the same work, use `Standard`.

The idea of moving budget by margin is that of Liu et al. 2022, arXiv 2203.05154; the moves, shares and rules are ours.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import torch

from vambrace.attacks.ball import Ball
from vambrace.attacks.board import Board
from vambrace.attacks.fixed import FixedRadius, require_option
from vambrace.attacks.flags import black_box_flag, blind_flag
from vambrace.attacks.operators import Burst, Toward, Windows
from vambrace.attacks.shares import Shares
from vambrace.attacks.square import Square
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

Steep = Literal["margin", "diverse", "ce", "toward"]

_FIRST_STEPS, _STEPS, _SPREADING = 5, 15, 5
_WINDOW_STEPS, _AFTER_STEPS = 20, 10
_SHARE, _LEAST = 0.04, 8
"""Of the survivors, how many a round looks at, and at least how many."""
_TRIED = 0.003
"""How far down the ranking, as a share of the survivors, a try moves a sample."""
_FEW = 10
_MOVE = 2 * (max(_STEPS + _SPREADING, _WINDOW_STEPS) + 2)
"""Rows that a move costs a sample at most, where no claim is refused."""
_TAIL_SHARE, _TAIL_LEAST, _TAIL_STEPS = 0.15, 4, 200
_RANKS, _DRY = 9, 3
"""Classes aimed at, the nearest ones, as the standard ensemble does it; how many in a row may break nothing."""
_MOST_QUERIES = 5000
"""Of random search from scratch: what the standard ensemble spends."""
_BEFORE = ("clean", "start", "burst")
"""What precedes the moves among which the budget is shared."""
_YIELD = 0.125
"""The share of the samples that windows look at which they may break without the budget running out for the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptive(FixedRadius):
    """Moves its budget to the samples that are nearest to breaking, and stops when nothing more is expected.

    Attributes:
        norm: what `eps` is measured in.
        eps: radius in the units of the inputs.
        budget: forwards, backwards and verifications that an input may cost, on the average over all inputs.
        patience: rows a survivor, of whom at least 10 are counted, without any success, that end the rounds.
        escalation: queries that a survivor may cost beside the budget where masked gradients are suspected; 0: none.
    """

    name: ClassVar[str] = "adaptive"
    norms: ClassVar[tuple[Norm, ...]] = ("l1", "l2", "linf")
    joint: ClassVar[bool] = True
    reuses: ClassVar[bool] = True
    black_box: ClassVar[bool] = True
    budget: int = 340
    patience: int = 50
    escalation: int = 5000

    def __post_init__(self) -> None:
        FixedRadius.__post_init__(self)
        require_option(self.budget >= 3, "budget", self.budget, "3 or more: what an input that is wrong already costs")
        require_option(self.patience >= 1, "patience", self.patience, "1 or more")
        holds = self.escalation == 0 or self.escalation >= 2
        require_option(holds, "escalation", self.escalation, "2 or more, or 0 for none")

    def run(self, problem: Problem, *, progress: Progress = silent) -> Attacked:
        """Clean pass, burst, rounds, verification, tail, aimed bursts."""
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
        self._short = False  # whether the last pass left out anything for want of budget
        self._verified = False  # whether it looked at every survivor
        self._aim = 0  # which class, by its rank, every survivor is moved toward next
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
            self._unguided()
            shares = Shares((*self._bursts(), "windows"))
            while True:
                self._short = False
                self._rounds(shares)
                if not (self._verification() + self._tail() or self._aimed()):
                    break
            self._ask_again()
            self._escalate()
        stopped = "budget" if self._short else "patience"
        return self._board.outcome(self._allowance, stopped if len(self._board.alive) else "broken")

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
            self._go("burst", afforded.sort().values, self._burst("margin", _FIRST_STEPS))

    def _unguided(self) -> None:
        """Where the burst met hardly any gradient, what the budget allows for random search from scratch.

        Small windows do well from a point that gradients have brought near the decision, and else little.
        """
        board = self._board
        alive = board.alive
        blind = alive[board.blind[alive]]
        if 2 * len(blind) <= len(alive) or not len(blind):
            return
        left = self._allowance - board.spent - self._reserve() - self._owed(len(blind))
        queries = min(left // len(blind) - 1, _MOST_QUERIES)
        if queries > _TAIL_STEPS:
            rule = Square(norm=self._options.norm, eps=self._options.eps, queries=queries).rule()
            self._searched("unguided", blind, self._part(blind), rule, black_box=True)

    def _bursts(self) -> tuple[Steep, ...]:
        """The moves that follow gradients."""
        named = isinstance(self._problem.goal, Untargeted | Targeted)
        many = self._ranks is not None and self._classes > 2
        return ("margin", "diverse", *(("ce",) if named else ()), *(("toward",) if many else ()))

    def _burst_of(self, move: Steep, index: Tensor) -> tuple[Problem, Burst]:
        """What to search, and by which rule."""
        if move == "diverse":
            return self._part(index), self._burst("margin", _STEPS + _SPREADING, _SPREADING)
        part = self._toward(index, self._tries[index]) if move == "toward" else self._part(index)
        return part, self._burst(move, _STEPS)

    def _rounds(self, shares: Shares) -> None:
        """Moves on the samples of the highest margin until nothing more is expected."""
        board, dry = self._board, 0
        # A budget that will not pay for what comes after the rounds is theirs.
        late = self._affords(_MOVE, _LEAST, reserve=self._reserve())
        while len(board.alive) and dry < self._options.patience * max(_FEW, len(board.alive)):
            chosen = self._chosen()
            if not self._affords(_MOVE, len(chosen), reserve=self._reserve() if late else self._owed(len(chosen))):
                break
            before, name = board.spent, shares.choose(self._stream().child("share"))
            found = self._windows(chosen) if name == "windows" else self._steeply(cast("Steep", name), chosen)
            self._tries[chosen] += 1
            shares.record(name, broken=found, cost=board.spent - before)
            dry = 0 if found else dry + board.spent - before

    def _steeply(self, move: Steep, index: Tensor) -> int:
        return self._searched(move, index, *self._burst_of(move, index))

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
        """One cross entropy burst on every survivor; how many it broke."""
        alive = self._board.alive
        self._verified = False
        if not len(alive) or not self._affords(2 * _STEPS + 2, len(alive), reserve=self._owed()):
            return 0
        self._verified = True
        named = isinstance(self._problem.goal, Untargeted | Targeted)
        return self._go("verification", alive, self._burst("ce" if named else "margin", _STEPS))

    def _tail(self, among: Tensor | None = None) -> int:
        """Long searches with windows on the survivors of the highest margin; how many samples they broke.

        Args:
            among: the samples to look at, beside the budget and whatever was verified; None: all, within it.
        """
        share, broken = _TAIL_SHARE, 0
        while self._verified or among is not None:
            alive = self._board.alive
            alive = alive if among is None else alive[torch.isin(alive, among)]
            if not len(alive):
                break
            ranked = alive[self._board.margin[alive].argsort(descending=True, stable=True)]
            index = ranked[: max(_TAIL_LEAST, math.ceil(share * len(alive)))]
            if among is None and not self._affords(_TAIL_STEPS + 2, len(index), reserve=self._owed(len(index))):
                break
            found = self._free("tail", index, _TAIL_STEPS)
            broken += found
            if not found or share >= 1:
                break
            share *= 2
        return broken

    def _aimed(self) -> int:
        """Bursts toward one class on every survivor, class by class, until some in a row break none; how many broke."""
        if "toward" not in self._bursts():
            return 0
        broken = dry = 0
        while dry < min(_DRY, self._classes - 1):
            alive = self._board.alive
            if not len(alive) or not self._affords(2 * _STEPS + 2, len(alive), reserve=self._owed()):
                break
            found = self._searched("aimed", alive, self._toward(alive, self._aim), self._burst("toward", _STEPS))
            self._aim += 1
            dry = 0 if found else dry + 1
            broken += found
        return broken

    def _ask_again(self) -> None:
        """Whether gradients find what only windows have found: else they mislead, and a flag says so."""
        left = self._board.beyond()
        for move in self._bursts():
            left = left[: max(0, (self._allowance - self._board.spent) // _MOVE)]
            if len(left):
                left = self._board.ask_again("again", left, search(*self._burst_of(move, left), name="again"))

    def _escalate(self) -> None:
        """Random search from scratch on the survivors for whom all that came before is no measure, and a tail."""
        suspects, queries = self._suspects(), self._options.escalation
        if len(suspects) and queries:
            rule = Square(norm=self._options.norm, eps=self._options.eps, queries=queries).rule()
            before = self._board.spent
            self._searched("escalation", suspects, self._part(suspects), rule, black_box=True)
            self._tail(suspects)
            self._allowance += self._board.spent - before

    def _suspects(self) -> Tensor:
        """Survivors whose gradients were not there, or mislead."""
        board = self._board
        alive, beyond = board.alive, len(board.beyond())
        followed = sum(part.broken for part in board.parts if not part.black_box and part.name not in _BEFORE)
        only = sum(part.beyond for part in board.parts)
        flag = black_box_flag(only, only + len(alive))
        if flag is not None and flag.level == "unreliable" and beyond >= followed:
            return alive
        blind = alive[board.blind[alive]]
        return blind if blind_flag(len(blind), len(alive)) is not None else blind[:0]

    def _windows(self, index: Tensor) -> int:
        """Small windows from the best point, then a burst from beside the new best."""
        board, steep = self._board, Burst(ball=self._ball, loss="margin", steps=_AFTER_STEPS, noise=True)
        found = self._free("windows", index, _WINDOW_STEPS)
        left = index[~board.success[index] & board.finite[index]]
        return found + (self._go("windows-burst", left, steep, start=board.best[left]) if len(left) else 0)

    def _toward(self, index: Tensor, tries: Tensor | int) -> Problem:
        """The problem of samples with one class to aim at, the next one by the logits of the input at every try."""
        assert self._ranks is not None
        goal = self._problem.goal
        assert isinstance(goal, Untargeted)
        place = (torch.zeros_like(index) + tries) % min(_RANKS, self._ranks.shape[1])
        targets = self._ranks[index].gather(1, place.unsqueeze(1)).squeeze(1)
        return dataclasses.replace(self._part(index), goal=Toward(goal.labels[index], targets))

    def _burst(self, loss: Literal["ce", "margin", "toward"], steps: int, spreading: int = 0) -> Burst:
        return Burst(ball=self._ball, loss=loss, steps=steps, spreading=spreading, classes=self._classes)

    def _free(self, name: str, index: Tensor, steps: int) -> int:
        """Windows from the best points: without gradients."""
        part = dataclasses.replace(self._part(index), start=self._board.best[index])
        return self._searched(name, index, part, Windows(ball=self._ball, steps=steps), black_box=True)

    def _go(self, name: str, index: Tensor, rule: Rule, start: Tensor | None = None) -> int:
        return self._searched(name, index, dataclasses.replace(self._part(index), start=start), rule)

    def _searched(self, name: str, index: Tensor, part: Problem, rule: Rule, *, black_box: bool = False) -> int:
        broken = self._board.add(name, index, search(part, rule, name=name), black_box=black_box)
        self._advance(broken)
        return broken

    def _part(self, index: Tensor) -> Problem:
        return dataclasses.replace(self._problem.take(index), rng=self._stream())

    def _stream(self) -> Streams:
        self._turn += 1
        return self._problem.rng.child("turn", self._turn)

    def _reserve(self) -> int:
        """Rows set aside for one verification, one tail, and what they and a round may owe."""
        alive = len(self._board.alive)
        tail = max(_TAIL_LEAST, math.ceil(_TAIL_SHARE * alive))
        return alive * (2 * _STEPS + 2) + tail * (_TAIL_STEPS + 2) + self._owed(_LEAST + tail)

    def _owed(self, samples: int = 0) -> int:
        """Rows that asking again may cost when windows look at so many samples more."""
        return (len(self._board.beyond()) + math.ceil(_YIELD * samples)) * len(self._bursts()) * _MOVE

    def _affords(self, rows: int, samples: int, *, reserve: int) -> bool:
        """Whether the budget pays for this; once it does not, something was left out."""
        affords = self._board.spent + rows * samples + reserve <= self._allowance
        self._short |= not affords
        return affords

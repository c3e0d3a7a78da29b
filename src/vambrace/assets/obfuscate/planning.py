"""Which passes fit: into a bound of how far answers may move, and into a budget of latency.

    fitted = fit(passes, moved, moved_by_one, done)
    planned = plan(fitted.kept, 1.05, measure)
    planned.kept

Passes that round are those of the tolerance profile. Only if all together move answers too far is each that was done
anywhere measured alone, with the random choices it drew among the others; those that break the bound by themselves are
left out, and then the worst of the others until the rest fits. A pass that found no place cannot have moved anything.

The most costly passes are done at fewer places, and then left out, those that hide most last.

`measure` is whatever tells how much slower a model with some passes is; a median over paired runs of
`vambrace.assets.obfuscate.measure.overhead` is meant. Passes that cost time are those whose `share` is the whole
obfuscation's unless stated, or that have a `slowdown` of their own. Others (names, order, what is written into weights)
are kept, and each of the former is measured alone only if all together are over the budget.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from vambrace.core.options import require

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from vambrace.assets.obfuscate.passes.base import Pass

__all__ = ["BUDGET", "Fitted", "LeftOut", "Moved", "NOWHERE", "Planned", "badness", "check_budget", "fit", "plan"]

BUDGET = 1.05
"""Latency relative to the original that is usual."""
_HALVINGS = 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """How far answers are from the original's.

    Attributes:
        relative: the largest difference, as a share of the largest answer to the same sample; infinite where there is
            no such share: whole numbers that are others, samples of zeros, one side that is no number.
        decisions: how many are others, at all settings of a runtime that were tried.
        holds: whether that is within the bound.
        apart: where `relative` is infinite, the most that answers are apart; infinite where that is no number either.
        summed: whether it is only together with other passes that it is too far: with the same choices it holds alone.
    """

    relative: float
    decisions: int
    holds: bool
    apart: float = math.inf
    summed: bool = False

    def __str__(self) -> str:
        """For a sentence that says what answers are moved by."""
        if math.isfinite(self.relative):
            far = f"{self.relative:.2g} of a sample's largest"
        elif math.isfinite(self.apart):
            far = f"up to {self.apart:g} in whole numbers or zeros"
        else:
            far = "more than a number says"
        turned = f" and {self.decisions} decisions" if self.decisions else ""
        return far + turned + (" and too far together with others" if self.summed else "")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A pass that was left out.

    Attributes:
        name: of the pass.
        place: among those that were wanted, from 0.
        moved: what it does to answers by itself.
    """

    name: str
    place: int
    moved: Moved


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """Passes that move answers no farther than they may.

    Attributes:
        kept: passes in their order.
        places: theirs among those that were wanted, from 0.
        left_out: the others, the worst first.
        moved: what those that were kept do to answers together; None where that was not measured, as none of them
            rounded anything, or cannot be, as the original differs from itself.
    """

    kept: tuple[Pass, ...]
    places: tuple[int, ...]
    left_out: tuple[LeftOut, ...]
    moved: Moved | None


NOWHERE = Moved(relative=0.0, decisions=0, holds=True)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What a plan keeps.

    Attributes:
        kept: passes in their order, some of them with a smaller share than was wanted.
        places: theirs among those that were wanted, from 0.
        dropped: names of passes that went and had done anything by themselves, the first one first.
        alone: how much slower each pass that costs time made the model by itself, by name; empty where all of them fit
            at once.
        ratio: latency with those that were kept, relative to the original.
        budget: what it had to fit into.
    """

    kept: tuple[Pass, ...]
    places: tuple[int, ...]
    dropped: tuple[str, ...]
    alone: Mapping[str, float]
    ratio: float
    budget: float

    @property
    def fits(self) -> bool:
        """Whether it fits; with nothing left that costs time it may not, where the measurement is noisy."""
        return self.ratio <= self.budget


def fit(
    passes: Sequence[Pass],
    measure: Callable[[Sequence[Pass]], Moved | None],
    measure_one: Callable[[Pass, int, bool], Moved],
    done: Callable[[Mapping[int, Pass]], Collection[int]],
) -> Fitted:
    """Leave out what moves answers too far: by itself, or together with the others.

    Args:
        passes: all that are wanted, in order. Those of the exact profile stay; alone they are not measured.
        measure: what passes together do to answers, or None where nothing tells; called for every set that is tried.
        measure_one: the same for a pass by itself, with the choices that it draws at this place of a list; whether all
            inputs have to be looked at.
        done: which passes of a set, by their places, were done anywhere; called after `measure` for the same set.
    """
    slots = dict(enumerate(passes))
    rounding = {place for place, one in slots.items() if one.profile == "tolerance"}
    moved = measure(passes) if rounding else None
    left_out: list[LeftOut] = []
    known: dict[tuple[int, int], Moved] = {}
    while moved is not None and not moved.holds and (movers := sorted(rounding & set(slots) & set(done(slots)))):
        # Choices depend on where a pass stands, so those that were drawn here are measured, and not those of a list of
        # one: else a pass that breaks the bound may seem to hold, and its neighbour gets the blame.
        stands = {place: at for at, place in enumerate(slots)}
        for place in movers:
            if (place, stands[place]) not in known:
                known[place, stands[place]] = measure_one(slots[place], stands[place], False)
        alone = {place: known[place, stands[place]] for place in movers}
        going = [place for place in movers if not alone[place].holds]
        if not going:
            worst = min(movers, key=lambda place: badness(alone[place]))
            own = moved if len(movers) == 1 else measure_one(slots[worst], stands[worst], True)
            alone[worst] = dataclasses.replace(own, summed=own.holds)
            going = [worst]
        left_out += [LeftOut(name=slots.pop(place).name, place=place, moved=alone[place]) for place in going]
        moved = measure(list(slots.values()))
    left_out.sort(key=lambda each: badness(each.moved))
    return Fitted(kept=tuple(slots.values()), places=tuple(slots), left_out=tuple(left_out), moved=moved)


def badness(moved: Moved) -> tuple[bool, float]:
    """To sort by, the worst first: what breaks the bound, and what moves answers farther."""
    return moved.holds, -moved.relative


def check_budget(budget: float) -> None:
    """Refuse what is no budget.

    Raises:
        ConfigError: E839.
    """
    require(
        math.isfinite(budget) and budget > 0,
        code="E839",
        seen=f"a budget of {budget}",
        expected="latency relative to the original, above 0",
        fix="write 1.05 for at most 5 % more time",
    )


def plan(passes: Sequence[Pass], budget: float, measure: Callable[[Sequence[Pass]], float]) -> Planned:
    """Take work away until the rest fits, and give back what has room after all.

    What is too slow by itself goes first. Then goes what costs most among the passes of least `worth`. A pass with a
    `share` of places is done at half of them, and at a quarter, before it is dropped, and one that has a lighter form
    in that.

    Args:
        passes: all that are wanted, in order, with their shares stated.
        budget: latency relative to the original, such as 1.05.
        measure: from passes to that ratio; called for every set that is tried.

    Raises:
        ConfigError: E839, for a budget that is none.
    """
    check_budget(budget)
    work = _Work(dict(enumerate(passes)), measure)
    ratio = measure(passes)
    costly = [at for at, one in enumerate(passes) if _costs(one)] if ratio > budget else []
    work.costs = {at: measure([passes[at]]) for at in costly}
    alone = {passes[at].name: work.costs[at] for at in costly}
    for at in sorted(costly, key=lambda at: -work.costs[at]):
        while work.costs.get(at, 0.0) > budget:
            work.lessen(at)
    if work.lessened:
        ratio = work.together()
    while ratio > budget and work.costs:
        work.lessen_to(budget, ratio, lambda at: (-passes[at].worth, work.costs[at]))
        ratio = work.together()
    # What is too slow by itself may not be beside others, of which some make a model faster.
    for at in sorted(work.dropped, key=lambda at: (-passes[at].worth, alone[passes[at].name])):
        for one in work.forms.get(at, [work.dropped[at]]):
            more = work.together(at, one)
            if more <= budget:
                work.slots[at], ratio = one, more
                break
    kept = dict(sorted(work.slots.items()))
    # One that changes nothing by itself goes as well, in case it does beside others, but is not to blame.
    dropped = tuple(passes[at].name for at in work.dropped if at not in kept and alone[passes[at].name] != 1.0)
    return Planned(
        kept=tuple(kept.values()), places=tuple(kept), dropped=dropped, alone=alone, ratio=ratio, budget=budget
    )


@dataclasses.dataclass(slots=True, eq=False)
class _Work:
    """Passes by their places, of which some are done less.

    Attributes:
        slots: those that are kept.
        measure: their latency.
        costs: of each that costs time and is kept, by itself; a guess where it was lessened to fit beside others.
        lessened: how often each was.
        dropped: those that went, as they were last, the first one first.
        forms: of those that have a lighter form and took it, both.
    """

    slots: dict[int, Pass]
    measure: Callable[[Sequence[Pass]], float]
    costs: dict[int, float] = dataclasses.field(default_factory=dict[int, float])
    lessened: dict[int, int] = dataclasses.field(default_factory=dict[int, int])
    dropped: dict[int, Pass] = dataclasses.field(default_factory=dict[int, "Pass"])
    forms: dict[int, list[Pass]] = dataclasses.field(default_factory=dict[int, "list[Pass]"])

    def lessen(self, at: int) -> None:
        """Halve a pass's share of places, or drop it, and see what it costs by itself then."""
        if self._halve(at):
            self.costs[at] = self.measure([self.slots[at]])

    def lessen_to(self, budget: float, ratio: float, first: Callable[[int], Any]) -> None:
        """Lessen passes, what is largest by `first` at a time, until those that are kept may fit by a guess.

        Near the budget it takes longest to measure what all of them cost, and one step often saves less than that
        measurement tells apart. What is guessed: half the places take half the time, and by themselves passes cost in
        proportion to what they cost together.
        """
        alone = sum(max(cost - 1, 0.0) for cost in self.costs.values())
        scale = max(ratio - 1, 0.0) / alone if alone else math.inf
        while ratio > budget and self.costs:
            at = max(self.costs, key=first)
            cost = max(self.costs[at] - 1, 0.0)
            if self._halve(at):
                self.costs[at] = 1 + cost / 2
            saved = cost - max(self.costs.get(at, 1.0) - 1, 0.0)
            # Where none costs anything by itself, nothing tells what a step saves.
            ratio -= scale * saved if math.isfinite(scale) else math.inf

    def _halve(self, at: int) -> bool:
        """Halve a pass's share of places, take its lighter form, or drop it; whether it is kept."""
        one = self.slots[at]
        share = getattr(one, "share", None)
        self.lessened[at] = self.lessened.get(at, 0) + 1
        if share and self.lessened[at] <= _HALVINGS:
            made: Any = one  # every pass is a dataclass
            self.slots[at] = dataclasses.replace(made, share=share / 2)
            return True
        if (lighter := one.lighter()) is not None:
            self.forms[at] = [one, lighter]
            self.slots[at] = lighter
            return True
        self.dropped[at] = self.slots.pop(at)
        del self.costs[at]
        return False

    def together(self, at: int | None = None, one: Pass | None = None) -> float:
        """Latency of those that are kept, and of one more at its place."""
        slots = self.slots if at is None or one is None else {**self.slots, at: one}
        return self.measure([slots[place] for place in sorted(slots)])


def _costs(one: Pass) -> bool:
    """Whether a pass leaves its share to the whole obfuscation, or bounds its own time, as those with a cost do."""
    made: Any = one
    fields = dataclasses.fields(made)
    return any(field.name == "slowdown" or (field.name == "share" and field.default is None) for field in fields)

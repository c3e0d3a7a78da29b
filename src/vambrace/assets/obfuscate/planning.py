"""Which passes fit into a budget of latency: the most costly ones are done at fewer places, and then left out.

    planned = plan(passes, 1.05, measure)
    planned.kept

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
    from collections.abc import Callable, Mapping, Sequence

    from vambrace.assets.obfuscate.passes.base import Pass

__all__ = ["Planned", "plan"]


_HALVINGS = 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What a plan keeps.

    Attributes:
        kept: passes in their order, some of them with a smaller share than was wanted.
        dropped: names of passes that went, the first one first.
        alone: how much slower each pass that costs time made the model by itself, by name; empty where all of them fit
            at once.
        ratio: latency with those that were kept, relative to the original.
        budget: what it had to fit into.
    """

    kept: tuple[Pass, ...]
    dropped: tuple[str, ...]
    alone: Mapping[str, float]
    ratio: float
    budget: float

    @property
    def fits(self) -> bool:
        """Whether it fits; with nothing left that costs time it may not, where the measurement is noisy."""
        return self.ratio <= self.budget


def plan(passes: Sequence[Pass], budget: float, measure: Callable[[Sequence[Pass]], float]) -> Planned:
    """Take work away from the pass that costs most until the rest fits.

    Its `share` of places is halved, twice at most; then it is dropped.

    Args:
        passes: all that are wanted, in order, with their shares stated.
        budget: latency relative to the original, such as 1.05.
        measure: from passes to that ratio; called for every set that is tried.

    Raises:
        ConfigError: E839, for a budget that is none.
    """
    require(
        math.isfinite(budget) and budget > 0,
        code="E839",
        seen=f"a budget of {budget}",
        expected="latency relative to the original, above 0",
        fix="write 1.05 for at most 5 % more time",
    )
    slots: list[Pass | None] = list(passes)
    dropped: list[str] = []
    ratio = measure(passes)
    costs = {at: measure([one]) for at, one in enumerate(passes) if _costs(one)} if ratio > budget else {}
    alone = {passes[at].name: cost for at, cost in costs.items()}
    halved = dict.fromkeys(costs, 0)
    while ratio > budget and costs:
        at = max(costs, key=lambda at: costs[at])
        one = slots[at]
        assert one is not None
        share = _share(one)
        if share and halved[at] < _HALVINGS:
            made: Any = one  # every pass is a dataclass
            slots[at] = fewer = dataclasses.replace(made, share=share / 2)
            halved[at] += 1
            costs[at] = measure([fewer])
        else:
            slots[at] = None
            del costs[at]
            dropped.append(one.name)
        ratio = measure([each for each in slots if each is not None])
    kept = tuple(each for each in slots if each is not None)
    return Planned(kept=kept, dropped=tuple(dropped), alone=alone, ratio=ratio, budget=budget)


def _costs(one: Pass) -> bool:
    """Whether a pass leaves its share to the whole obfuscation, or bounds its own time, as those with a cost do."""
    made: Any = one
    fields = dataclasses.fields(made)
    return any(field.name == "slowdown" or (field.name == "share" and field.default is None) for field in fields)


def _share(one: Pass) -> float | None:
    return getattr(one, "share", None)

"""The passes that hold a bound of difference and fit into a budget of latency, measured with inputs of the caller."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import TYPE_CHECKING, Any, Literal

from vambrace.assets.obfuscate.fitting import Answers, Remembering, fit_made
from vambrace.assets.obfuscate.measure.inputs import read_rows
from vambrace.assets.obfuscate.measure.overhead import Latency
from vambrace.assets.obfuscate.measure.runtime import Network, Settings
from vambrace.assets.obfuscate.pipeline import onnx_model
from vambrace.assets.obfuscate.planning import badness, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from onnx import ModelProto

    from vambrace.assets.obfuscate.measure.equality import Decide
    from vambrace.assets.obfuscate.measure.inputs import Rows
    from vambrace.assets.obfuscate.passes.base import Pass, Profile
    from vambrace.assets.obfuscate.pipeline import Obfuscated
    from vambrace.assets.obfuscate.planning import Fitted, Planned
    from vambrace.assets.obfuscate.record import Entry

__all__ = ["plan_passes", "within"]

_SESSIONS = (3, 6, 12, 35)
"""Of each model: of a measurement, and of longer ones where those before leave open whether the budget holds."""
_HOPELESS = 12
"""From so many on, none are added where the median is over the budget."""
_ROUNDS = 12
"""In a session. A session of a network with imagined ones takes as long to make."""
_SECONDS = 30.0
"""Most that a measurement may take before it goes on."""
_NARROW = 0.01
"""An interval of which no longer measurement is made: on which side of the budget it lies is all but one."""


def plan_passes(
    source: str | Path | Any,  # noqa: ANN401  onnx.ModelProto
    inputs: NDArray[Any] | Sequence[NDArray[Any]] | Mapping[str, NDArray[Any]],
    budget: float,
    *,
    profile: Profile = "exact",
    ratio: Literal["small", "medium", "large"] | None = None,
    seed: int | bytes | None = None,
) -> Planned:
    """Passes for `onnx_model` whose latency fits, as far as the passes that cost anything can be left out.

    Those of the tolerance profile that move answers to these inputs too far are left out before, as by `onnx_model`.

    Args:
        source: path of an .onnx file or an onnx.ModelProto.
        inputs: real samples (n, ...), as for `measure`.
        budget: latency relative to the original, such as 1.05.
        profile: whose passes.
        ratio: how many places passes with a cost take at first.
        seed: as for `onnx_model`; another one takes other places, which may cost something else.

    Raises:
        ConfigError: E800, E802, as `onnx_model`; E820 for inputs, E839 for a budget that is none.
        ArtifactRefused: E821, E822, for a model that does not run.
        ModelRefused: E230 to E235, for a file.
    """
    made = onnx_model(source, profile=profile, ratio=ratio, seed=seed, inputs=inputs, budget=budget)
    assert made.planned is not None
    return made.planned


def within(
    original: ModelProto,
    passes: Sequence[Pass],
    make: Callable[[Sequence[Pass], int], Obfuscated],
    inputs: NDArray[Any] | Sequence[NDArray[Any]] | Mapping[str, NDArray[Any]],
    budget: float | None = None,
    decide: Decide | None = None,
) -> Obfuscated:
    """A model whose answers are within the bound of the tolerance profile, and its latency in the budget.

    First the difference, then latency, over the passes that are left. Where one goes the others are drawn again, so
    what was kept for the budget is held against the bound once more.

    Args:
        original: onnx.ModelProto.
        passes: all that are wanted, in order, with their shares stated.
        make: obfuscates the original by some passes, each time with the same draws; at which place of a list the first
            one stands, for draws depend on it.
        inputs: real samples (n, ...), as for `measure`.
        budget: latency relative to the original, or None.
        decide: what the model is used for, as for `measure`.

    Raises:
        ConfigError: E820 for inputs; E839 for a budget that is none.
        ArtifactRefused: E821, E822, for a model that does not run.
    """
    real = read_rows(inputs, Network(original), batch=1)
    making, answers = Remembering(make), Answers(original, real, decide)
    timed = _timed(original, real, making, budget or 0.0)
    fitted, entries = fit_made(passes, making, answers)
    planned = None
    while budget is not None:
        planned = _then(fitted, planned, plan(fitted.kept, budget, timed))
        again, more = fit_made(planned.kept, making, answers)
        fitted, entries = _and(fitted, entries, planned, again, more)
        if not more:
            break
    made = making(fitted.kept)
    # They stand before all that was done, so that the rest of the map is in the order of its doing.
    known = dataclasses.replace(made.map, passes=(*entries, *made.map.passes))
    return dataclasses.replace(made, map=known, fitted=fitted, planned=planned)


def _timed(
    original: ModelProto, real: Rows, make: Callable[[Sequence[Pass]], Obfuscated], budget: float
) -> Callable[[Sequence[Pass]], float]:
    known: dict[str, float] = {}

    def measured(passes: Sequence[Pass]) -> float:
        made = make(passes)
        # What was done nowhere, or only to names and weights, runs the same graph.
        if all(entry.name in _FREE or not entry.done for entry in made.map.passes):
            return 1.0
        # By model: beside other passes a pass is done as often, but at other places, which cost something else.
        digest = made.map.obfuscated
        if digest not in known:
            known[digest] = _slower(Latency(original, made.model, real, settings=Settings(), null=False), budget)
        return known[digest]

    return measured


def _slower(times: Latency, budget: float) -> float:
    """How much slower a model is, at most: the upper end of an interval, in sessions enough to tell, or many."""
    begin, done, high = time.perf_counter(), 0, math.inf
    for sessions in _SESSIONS:
        # The first ones tell how long more of them take.
        if done and (time.perf_counter() - begin) * sessions / done > _SECONDS:
            break
        for _ in range(done, sessions):
            times.session(_ROUNDS, seconds=_SECONDS / _SESSIONS[-1])
        done = sessions
        found = times.ratios()["cpu"]
        low, high = (found.interval.low, found.interval.high) if found.interval else (found.median, found.median)
        # What may be over the budget is, however busy the machine.
        if not low <= budget < high or high - low <= _NARROW:
            break
        # More of them would have to move the median and not only its interval.
        if sessions >= _HOPELESS and found.median > budget:
            break
    return high


def _then(fitted: Fitted, before: Planned | None, now: Planned) -> Planned:
    """A plan over passes that were kept, as one over those that were wanted."""
    now = dataclasses.replace(now, places=tuple(fitted.places[at] for at in now.places))
    if before is None:
        return now
    return dataclasses.replace(now, dropped=before.dropped + now.dropped, alone={**before.alone, **now.alone})


def _and(
    before: Fitted, entries: tuple[Entry, ...], planned: Planned, again: Fitted, more: tuple[Entry, ...]
) -> tuple[Fitted, tuple[Entry, ...]]:
    """What was left out of a plan, beside what was left out before it."""
    later = [dataclasses.replace(each, place=planned.places[each.place]) for each in again.left_out]
    both = [*zip(before.left_out, entries, strict=True), *zip(later, more, strict=True)]
    both.sort(key=lambda pair: badness(pair[0].moved))
    fitted = dataclasses.replace(
        again,
        places=tuple(planned.places[at] for at in again.places),
        left_out=tuple(left for left, _ in both),
    )
    return fitted, tuple(entry for _, entry in both)


_FREE = frozenset({"baked_permutation", "metadata", "names", "order", "rebasis", "scaling", "signs"})

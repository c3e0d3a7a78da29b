"""How far passes of the tolerance profile move a network's answers, on inputs of the caller, as the gates judge it.

The gate's own comparison runs, under its settings, on its rows; a pass alone runs on the first of these rows, under the
first settings. What it does there it does to all rows as well, so the difference that is found is a lower bound.
Where the original differs from itself nothing tells what a pass does, and nothing is left out.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from vambrace.assets.obfuscate.measure.equality import Equality, EqualityOptions, Found, compare_answers
from vambrace.assets.obfuscate.measure.gates import Gates
from vambrace.assets.obfuscate.measure.judging import judge_equality
from vambrace.assets.obfuscate.passes import pass_class
from vambrace.assets.obfuscate.planning import NOWHERE, Moved, fit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from onnx import ModelProto

    from vambrace.assets.obfuscate.measure.difference import Difference
    from vambrace.assets.obfuscate.measure.equality import Decide
    from vambrace.assets.obfuscate.measure.inputs import Rows
    from vambrace.assets.obfuscate.passes.base import Pass
    from vambrace.assets.obfuscate.pipeline import Obfuscated
    from vambrace.assets.obfuscate.planning import Fitted
    from vambrace.assets.obfuscate.record import Entry, ObfuscationMap

__all__ = ["Answers", "Made", "Remembering", "fit_made", "moved_by"]

_GATES = Gates(profile="tolerance")
_HELD = ("equality", "top1")
"""Gates that a pass can break."""
_ALL = EqualityOptions(kinds=("real",))
_FIRST = dataclasses.replace(_ALL, settings=_ALL.settings[:1], rows=_ALL.fewer)


class Made(Protocol):
    """A model, or a program, with the map of what was done to it."""

    @property
    def map(self) -> ObfuscationMap:
        """What was done."""
        ...


M = TypeVar("M", bound=Made)


class Remembering(Generic[M]):
    """Obfuscates only where the last passes were others."""

    def __init__(self, make: Callable[[Sequence[Pass], int], M]) -> None:
        self._make = make
        self._last: tuple[tuple[tuple[Pass, ...], int], M] | None = None

    def __call__(self, passes: Sequence[Pass], first: int = 0) -> M:
        """With the choices of a list in which the first pass stands at the place `first`."""
        asked = tuple(passes), first
        if self._last is None or self._last[0] != asked:
            self._last = asked, self._make(passes, first)
        return self._last[1]


class Answers:
    """The answers of a network, to hold those of obfuscated ones against.

    Args:
        original: onnx.ModelProto.
        real: rows for it.
        decide: what it is used for, as for `compare_answers`.
    """

    def __init__(self, original: ModelProto, real: Rows, decide: Decide | None) -> None:
        self._original, self._real, self._decide = original, real, decide
        self._known: dict[str, Moved | None] = {}

    def __call__(self, made: Obfuscated, whole: bool) -> Moved | None:
        """How far a model is from it: on all rows and settings of the gate, or the first."""
        digest = made.map.obfuscated
        if digest not in self._known:
            # Most of what breaks the bound does so on the first rows.
            found = self._compared(made, _FIRST)
            if not whole:
                return found
            self._known[digest] = self._compared(made, _ALL) if found is not None and found.holds else found
        return self._known[digest]

    def _compared(self, made: Obfuscated, options: EqualityOptions) -> Moved | None:
        found = compare_answers(self._original, made.model, self._real, options=options, decide=self._decide)
        return _judged(found)


def fit_made(
    passes: Sequence[Pass], make: Remembering[M], measure: Callable[[M, bool], Moved | None]
) -> tuple[Fitted, tuple[Entry, ...]]:
    """The passes whose answers are within the bound, and what the map says of the others.

    Args:
        passes: all that are wanted, in order.
        make: obfuscates by some passes, each time with the same draws at the same places.
        measure: how far what was made is from the original, or None where that differs from itself; whether all
            inputs must be looked at.
    """
    entries: dict[int, Entry] = {}

    def together(tried: Sequence[Pass]) -> Moved | None:
        made = make(tried)
        return measure(made, True) if _rounds(made) else None

    def alone(one: Pass, place: int, whole: bool) -> Moved:
        made = make([one], place)
        return (measure(made, whole) if _rounds(made) else None) or NOWHERE

    def done(tried: Mapping[int, Pass]) -> list[int]:
        # A pass that goes keeps the entry of the last set that it was in.
        entries.update(zip(tried, make(list(tried.values())).map.passes, strict=True))
        return [place for place in tried if entries[place].done]

    found = fit(passes, together, alone, done)
    return found, tuple(_spared(entries[each.place], each.moved) for each in found.left_out)


def moved_by(difference: Difference, repeat: Difference) -> Moved | None:
    """What the gates of the tolerance profile judge of answers to real inputs, or None where they cannot.

    Args:
        difference: of these answers from the original's.
        repeat: of the original's from its own, when it is asked again.
    """
    found = Found(settings="", kind="real", output="answers", difference=difference)
    return _judged(Equality(found=(found,), repeat=repeat, drift={}, decisions=("answers",)))


def _judged(found: Equality) -> Moved | None:
    if not found.repeat.exact:
        return None
    decided = found.decided("real")
    shareless = [each.difference.max_abs for each in found.found if math.isinf(each.difference.max_row)]
    return Moved(
        relative=found.relative(_GATES.relative_to, "real"),
        decisions=decided.top1_of - decided.top1_same,
        holds=all(each.word != "fail" for each in judge_equality(found, _GATES) if each.gate in _HELD),
        apart=max(shareless, default=math.inf),
    )


def _spared(entry: Entry, moved: Moved) -> Entry:
    why = f"that move answers by {moved}"
    return dataclasses.replace(entry, done=0, left={**entry.left, why: entry.done}, record=None, marks=())


def _rounds(made: Made) -> bool:
    return any(entry.done and pass_class(entry.name).profile == "tolerance" for entry in made.map.passes)

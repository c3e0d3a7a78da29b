"""Whether an obfuscated model gives the original's answers, on the same runtime under the same settings.

Both networks see the same rows, call by call. What "the same" is worth is said by two controls: `repeat`, a second
session of the original itself, which must differ nowhere or no difference of the obfuscated model means anything; and
`drift`, how far the original at each level is from itself at the first one, because a runtime that fuses and reorders
moves the last bits of a model that nobody has obfuscated.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vambrace.assets.obfuscate.measure.difference import NOTHING, Difference, compare, joined
from vambrace.assets.obfuscate.measure.inputs import (
    KINDS,
    Kind,
    Rows,
    edge_rows,
    extreme_rows,
    infinite_rows,
    nan_rows,
    random_rows,
)
from vambrace.assets.obfuscate.measure.runtime import Network, Settings
from vambrace.core.options import Options
from vambrace.core.options import require as hold
from vambrace.core.rng import Streams
from vambrace.errors import ArtifactRefused, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray
    from onnx import ModelProto

    Decide = Callable[[list[NDArray[Any]]], NDArray[np.int64]]

__all__ = ["Equality", "EqualityOptions", "Found", "check_pair", "compare_answers", "decisions", "run_rows"]


DECISION = "decision"
"""Stands for an output, where the caller says what is decided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualityOptions(Options):
    """Where answers are compared.

    Attributes:
        settings: levels and threads; the first is the one that matters most.
        rows: real rows under the first settings, at most; the others get `fewer`.
        fewer: real rows under the other settings, and random rows under all.
        decisions: names of the original's outputs, whose last axis holds scores of choices; empty: all that could.
        kinds: of rows that are run.
    """

    settings: tuple[Settings, ...] = (
        Settings(),
        Settings(threads=2),
        Settings(level="extended"),
        Settings(level="basic"),
        Settings(level="disabled"),
    )
    rows: int = 500
    fewer: int = 50
    decisions: tuple[str, ...] = ()
    kinds: tuple[Kind, ...] = KINDS

    def __post_init__(self) -> None:
        hold(
            len(self.settings) >= 1 and self.rows >= 1 and self.fewer >= 1 and set() < set(self.kinds) <= set(KINDS),
            code="E820",
            seen=f"{len(self.settings)} settings, {self.rows} and {self.fewer} rows, kinds {self.kinds}",
            expected=f"at least one of each, kinds among {', '.join(KINDS)}",
            fix="leave them out",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One output on one kind of rows under one setting."""

    settings: str
    kind: Kind
    output: str
    difference: Difference

    def as_json(self) -> dict[str, object]:
        """As JSON data."""
        place: dict[str, object] = {"settings": self.settings, "kind": self.kind, "output": self.output}
        return place | asdict(self.difference)


@dataclass(frozen=True, slots=True, kw_only=True)
class Equality:
    """What `compare_answers` found.

    Attributes:
        found: every output, kind and setting.
        repeat: the original beside itself.
        drift: title of settings -> the original beside itself under the first settings, on the same rows.
        decisions: the outputs whose top-1 counts.
    """

    found: tuple[Found, ...]
    repeat: Difference
    drift: dict[str, Difference]
    decisions: tuple[str, ...]

    def worst(self, *kinds: Kind) -> Difference:
        """All outputs and settings together, on these kinds of rows; counts are sums."""
        total = NOTHING
        for each in self.found:
            if each.kind in kinds:
                total = joined(total, each.difference)
        return total

    def relative(self, to: Literal["sample", "output"], *kinds: Kind) -> float:
        """The largest difference over the largest value of its sample, or of its output over all samples."""
        found = [each.difference for each in self.found if each.kind in kinds]
        return max((each.max_row if to == "sample" else each.of_output for each in found), default=0.0)

    def asked(self, *kinds: Kind) -> int:
        """How many rows there are of these kinds, however many settings and outputs they were asked about."""
        return max((each.difference.rows for each in self.found if each.kind in kinds), default=0)

    def decided(self, *kinds: Kind) -> Difference:
        """The same for outputs that hold decisions."""
        total = NOTHING
        for each in self.found:
            if each.kind in kinds and each.output in self.decisions:
                total = joined(total, each.difference)
        return total

    def as_json(self) -> dict[str, object]:
        """As JSON data."""
        return {
            "found": [each.as_json() for each in self.found],
            "repeat": asdict(self.repeat),
            "drift": {title: asdict(difference) for title, difference in self.drift.items()},
            "decisions": list(self.decisions),
        }


def compare_answers(
    original: ModelProto,
    obfuscated: ModelProto,
    real: Rows,
    *,
    options: EqualityOptions | None = None,
    keys: Mapping[str, NDArray[Any]] | None = None,
    decide: Decide | None = None,
    rng: Streams | int = 0,
) -> Equality:
    """Compare the answers of two models whose inputs and outputs correspond by position.

    Args:
        original: an onnx.ModelProto.
        obfuscated: the same with other names.
        real: rows for the original.
        options: settings and numbers of rows.
        keys: inputs that only the obfuscated model has, by name; the same in every call.
        decide: from the outputs of a call to whole numbers, what the model is used for, such as which boxes it finds;
            its answers are judged in place of top-1.
        rng: of the random rows.

    Raises:
        ArtifactRefused: E821 to E823.
    """
    chosen = options or EqualityOptions()
    streams = rng if isinstance(rng, Streams) else Streams(rng)
    found: list[Found] = []
    drift: dict[str, Difference] = {}
    names: tuple[str, ...] = ()
    repeat = NOTHING
    for place, settings in enumerate(chosen.settings):
        one, two = Network(original, settings), Network(obfuscated, settings, keys)
        check_pair(one, two)
        names = one.outputs
        reference = Network(original, chosen.settings[0])
        for kind, rows in _sets(real, chosen, place, streams):
            apart, from_reference = _lockstep(one, two, reference, rows, decide)
            titles = (*names, DECISION) if decide else names
            found += [
                Found(settings=settings.title, kind=kind, output=name, difference=difference)
                for name, difference in zip(titles, apart, strict=True)
            ]
            if kind == "real" and place == 0:
                repeat = from_reference
            elif kind == "real":
                drift[settings.title] = from_reference
    if decide:
        return Equality(found=tuple(found), repeat=repeat, drift=drift, decisions=(DECISION,))
    kept = set(chosen.decisions) & set(names)
    could = {each.output for each in found if each.difference.top1_of}
    if chosen.decisions and kept != set(chosen.decisions):
        missing = sorted(set(chosen.decisions) - kept)
        raise ArtifactRefused(
            "E823",
            seen=f"no output {missing[0]!r} in the original",
            expected=f"names among {list(names)}",
            fix="name outputs of the original model",
        )
    return Equality(
        found=tuple(found),
        repeat=repeat,
        drift=drift,
        decisions=tuple(name for name in names if name in (kept or could)),
    )


def check_pair(original: Network, obfuscated: Network) -> None:
    """Refuse two networks whose inputs or outputs do not correspond.

    Raises:
        ArtifactRefused: E823.
    """
    taken = [[str(each.dtype) for each in network.inputs] for network in (original, obfuscated)]
    given = [len(network.outputs) for network in (original, obfuscated)]
    if taken[0] != taken[1] or given[0] != given[1]:
        raise ArtifactRefused(
            "E823",
            seen=f"an obfuscated model of inputs {taken[1]} and {given[1]} outputs",
            expected=f"those of the original, in its order: {taken[0]} and {given[0]} outputs",
            fix="give inputs that only the obfuscated model has, such as keys, by name",
        )


def run_rows(network: Network, rows: Rows) -> Iterator[list[NDArray[Any]]]:
    """The outputs of each call, without the rows that only fill a call up."""
    for count, arrays in rows.calls():
        answers = network.run(arrays)
        yield [
            answer[:count] if not rows.whole and answer.ndim and len(answer) == rows.batch else answer
            for answer in answers
        ]


def decisions(decide: Decide, answers: list[NDArray[Any]]) -> NDArray[Any]:
    """What the caller's function makes of the outputs of a call.

    Raises:
        ConfigError: E820, for what are no whole numbers.
    """
    found = decide(answers)
    array = isinstance(found, np.ndarray)  # pyright: ignore[reportUnnecessaryIsInstance]
    if not array or found.dtype.kind not in "iub":
        raise ConfigError(
            "E820",
            seen=f"decide gave {type(found).__name__}",
            expected="an array of whole numbers, one or more a row",
            fix="such as decide=lambda outputs: outputs[0].argmax(1)",
        )
    return found


def _sets(real: Rows, chosen: EqualityOptions, place: int, rng: Streams) -> list[tuple[Kind, Rows]]:
    kept = real.first(chosen.rows if place == 0 else chosen.fewer)
    sets: dict[Kind, Callable[[], Rows | None]] = {
        "real": lambda: kept,
        "random": lambda: random_rows(real, min(chosen.fewer, 4 * len(real)), rng),
        "edge": lambda: edge_rows(real),
        "nan": lambda: nan_rows(real),
        "infinite": lambda: infinite_rows(real),
        "extreme": lambda: extreme_rows(real),
    }
    return [(kind, rows) for kind in chosen.kinds if (rows := sets[kind]()) is not None]


def _lockstep(
    one: Network, two: Network, reference: Network, rows: Rows, decide: Decide | None
) -> tuple[list[Difference], Difference]:
    """Call by call, so that no more than one call's answers are ever held."""
    apart, decided = [NOTHING] * len(one.outputs), NOTHING
    from_reference = NOTHING
    # One call ahead, or a model that draws at random would draw the same numbers in every session.
    reference.run(next(rows.calls())[1])
    three = (run_rows(network, rows) for network in (one, two, reference))
    for left, right, again in zip(*three, strict=True):
        if decide:
            mine, theirs = decisions(decide, left), decisions(decide, right)
            same = int((mine == theirs).sum()) if mine.shape == theirs.shape else 0
            decided = joined(decided, Difference(rows=len(mine) if mine.ndim else 1, top1_same=same, top1_of=mine.size))
        for output, answer in enumerate(left):
            apart[output] = joined(apart[output], compare([answer], [right[output]]))
            from_reference = joined(from_reference, compare([again[output]], [answer]))
    return [*apart, decided] if decide else apart, from_reference

"""What a locked file does for whoever has no key, or a wrong one, beside the original.

Each output of the original that depends on weights is compared with that of the locked file as it lies there, and with
those that wrong keys give (`vambrace.assets.obfuscate.measure.likeness`). Of the file as it lies there also counts what
can be turned round, since there is one of it.

1 is the original's function. 0 is what networks of the same graph have in common with it whose weights were drawn anew
(`vambrace.assets.obfuscate.measure.redrawn`), since what agrees by chance does not count: the file as it lies there is
at 0 where one of them is as much like the original, and wrong keys are taken beyond their mean. Where not all weights
of the original can be drawn anew, chance is what frequencies and other numbers of the same answers tell. What cannot be
run, or answers with other shapes or NaN, is at 0. Of answers with many numbers a row, such as pictures, some are looked
at.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.assets.obfuscate import key_entry, keyinput, lock_entry, locking
from vambrace.assets.obfuscate.measure import answered
from vambrace.assets.obfuscate.measure.equality import DECISION
from vambrace.assets.obfuscate.measure.likeness import OPEN, Likeness, beyond, beyond_all, decided_by, likeness, often
from vambrace.assets.obfuscate.measure.ranks import EQUAL
from vambrace.assets.obfuscate.measure.redrawn import Redrawing
from vambrace.assets.obfuscate.measure.runtime import Network
from vambrace.assets.obfuscate.weighted import weighted_outputs
from vambrace.core.options import Options
from vambrace.core.options import require as hold
from vambrace.errors import ArtifactRefused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from onnx import ModelProto

    from vambrace.assets.obfuscate.measure.equality import Decide
    from vambrace.assets.obfuscate.measure.inputs import Rows
    from vambrace.core.rng import Streams

_NEARLY = 0.9
_FEWEST_CALLS = 0.5
"""Share of calls that are answered with as many numbers as the original's, from which on they are compared."""
_MANY = 0.25
"""Share of other networks from which on it is no knowledge of the original to tell a number."""
__all__ = ["Keyless", "KeylessOptions", "KeylessOutput", "try_without_key"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeylessOptions(Options):
    """How much is tried.

    Attributes:
        keys: wrong ones, at least 2.
        rows: real rows for each of them, at most.
    """

    keys: int = 20
    rows: int = 100

    def __post_init__(self) -> None:
        hold(
            self.keys >= 2 and self.rows >= 1,
            code="E820",
            seen=f"{self.keys} wrong keys on {self.rows} rows",
            expected="at least two keys and one row",
            fix="leave them out",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeylessOutput:
    """One output. Likeness is 1 for the original's function and 0 at chance.

    Attributes:
        output: its name in the original.
        decided: whether decisions were compared, and not numbers.
        without: likeness of the file as it lies there; None where it does not run without a key, and where it goes
            with the original in all rows, as other weights may do, but does not give the very answers.
        wrong: likeness with each wrong key.
        turned: of wrong keys, on average, for whoever turns round or moves what each of them answers.
        opened: wrong keys that give the very answers of the original, or rank them so where no other weights do.
        nearly: wrong keys that give most of them, or of their reverse.
        nearly_strangers: networks with other weights that do.
        telling: wrong keys that give one of several numbers in the order of the original's rows, or its reverse.
        telling_strangers: networks with other weights that do; numbers that many of them give are not looked at.
        given: numbers of a row that the file as it lies there gives so, if they are more than any of those gives.
        strangers: likeness of networks with other weights, about 0 on average; none where they do not tell chance.
        same: share of the original's decisions that a wrong key gives on average (without wrong keys, that no key
            gives); None for numbers.
        chance: what that is for networks with other weights, or else by the frequencies of the decisions alone.
        told: whether anything can be told from the original's answers: they are neither all zero nor all no numbers,
            and other weights do not give the like of them.
    """

    output: str
    decided: bool
    without: float | None
    wrong: tuple[float, ...]
    same: float | None
    chance: float | None
    told: bool = True
    strangers: tuple[float, ...] = ()
    turned: float = 0.0
    opened: int = 0
    given: int = 0
    nearly: int = 0
    nearly_strangers: int = 0
    telling: int = 0
    telling_strangers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyless:
    """What `try_without_key` found.

    Attributes:
        rows: that were run.
        keys: wrong ones that were tried; 0 where the file has no lock of ours.
        failed: keys with which the model did not run.
        outputs: those of the original that depend on weights.
        broken: keys with which it answered with NaN or an infinity where the original has numbers.
    """

    rows: int
    keys: int
    failed: int
    outputs: tuple[KeylessOutput, ...]
    broken: int = 0

    def as_json(self) -> dict[str, object]:
        """As JSON data."""
        return asdict(self)


def try_without_key(
    original: ModelProto,
    at_rest: ModelProto,
    real: Rows,
    *,
    options: KeylessOptions | None = None,
    decide: Decide | None = None,
    rng: Streams,
) -> Keyless:
    """Run a locked file as it is and with wrong keys, and compare what it answers.

    Args:
        original: an onnx.ModelProto.
        at_rest: the locked one; inputs and outputs correspond by position.
        real: rows for the original.
        options: keys and rows.
        decide: from the outputs of a call to whole numbers: what the model is used for, in place of all outputs.
        rng: of the wrong keys, and of other weights.
    """
    chosen = options or KeylessOptions()
    rows = real.first(chosen.rows)
    network = Network(original)
    calls = answered.calls(network, rows, decide)
    whole = answered.joined(calls, calls)
    wanted = [answered.thinned(each, each) for each in whole]
    kept = [DECISION] if decide else weighted_outputs(original)
    places = {name: 0 if decide else network.outputs.index(name) for name in kept}
    by_input = _has(at_rest, key_entry.ENTRY)

    def thin(found: answered.Calls | None) -> list[NDArray[Any]] | None:
        return (
            None
            if found is None
            else [answered.thinned(*each) for each in zip(answered.joined(found, calls), whole, strict=True)]
        )

    bare = None if by_input else _tried(at_rest, rows, {}, decide)
    alone = thin(bare)
    tried: list[list[NDArray[Any]] | None] = []
    shares: list[list[float]] = [answered.comparable(bare, calls)] if bare is not None else []
    broken = 0
    if by_input or _has(at_rest, lock_entry.ENTRY):
        for number in range(chosen.keys):
            key = hashlib.sha256(rng.child("wrong key", number).key.to_bytes(8, "little")).digest()
            found = _with_key(at_rest, key, rows, decide)
            broken += found is not None and _breaks(calls, found)
            tried.append(thin(found))
            shares += [answered.comparable(found, calls)] if found is not None and by_input else []
    others = Redrawing(original)
    count = chosen.keys if others.whole else 0
    drawn = (others.draw(rng.child("other weights", at)) for at in range(count))
    strangers = [thin(_tried(each, rows, {}, decide)) for each in drawn]
    outputs: list[KeylessOutput] = []
    for name, place in places.items():
        answers = _Answers(
            wanted[place],
            _at(alone, place),
            [_at(each, place) for each in tried],
            [_at(each, place) for each in strangers],
        )
        found = _output(name, answers, by_input=by_input, several=len(places))
        # Of a file that answers other numbers of boxes nothing is known.
        few = bool(shares) and float(np.mean([each[place] for each in shares])) < _FEWEST_CALLS
        outputs.append(replace(found, told=found.told and not (few and answered.uneven(calls[place]))))
    return Keyless(
        rows=len(rows),
        keys=len(tried),
        failed=sum(each is None for each in tried),
        outputs=tuple(outputs),
        broken=broken,
    )


def _breaks(wanted: answered.Calls, others: answered.Calls) -> bool:
    """Whether answers are no numbers where the original's are."""
    return any(
        one.shape == two.shape and bool((np.isfinite(one) & ~np.isfinite(two)).any())
        for first, second in zip(wanted, others, strict=True)
        for one, two in zip(first, second, strict=True)
        if one.dtype.kind == two.dtype.kind == "f"
    )


@dataclass(frozen=True, slots=True)
class _Answers:
    """Of one output: the original's, and those without a key, with wrong keys, and of networks with other weights."""

    wanted: NDArray[Any]
    bare: NDArray[Any] | None
    wrong: Sequence[NDArray[Any] | None]
    strangers: Sequence[NDArray[Any] | None]


def _output(name: str, answers: _Answers, *, by_input: bool, several: int = 1) -> KeylessOutput:
    wanted, bare, *others = _in_numbers([answers.wanted, answers.bare, *answers.wrong, *answers.strangers])
    assert wanted is not None
    decided = decided_by(wanted)
    # Where nothing is decided at any place, nothing could agree by merit.
    still = decided is not None and (not wanted.size or (np.diff(decided.reshape(len(wanted), -1), axis=0) == 0).all())
    if decided is not None and (still or wanted.dtype.kind != "f" and not often(decided)):
        decided = None
    found = [likeness(wanted, each, decided, turned=True) for each in others]
    wrong, strangers = found[: len(answers.wrong)], found[len(answers.wrong) :]
    at_rest = likeness(wanted, bare, decided, turned=True)
    values, sizes = ([one.value for one in strangers], [abs(one.turned) for one in strangers])
    without = None if by_input else _without(wanted, bare, at_rest.turned, sizes, several)
    given = 0 if by_input else max(_given(at_rest, strangers, bar) for bar in (_NEARLY, OPEN, (OPEN + EQUAL) / 2))
    # By the frequencies alone where no other weights are drawn.
    same = [each.shares[0] for each in wrong or [at_rest] if each.shares is not None]
    chance = [each.shares[0] for each in strangers if each.shares is not None] or [
        each.shares[1] for each in wrong or [at_rest] if each.shares is not None
    ]
    return KeylessOutput(
        output=name,
        decided=decided is not None,
        without=without,
        wrong=beyond([each.value for each in wrong], values),
        strangers=beyond(values, values),
        opened=sum(
            _same(wanted, each) or one.value > OPEN and max(values, default=0.0) <= OPEN
            for one, each in zip(wrong, others, strict=False)
        ),
        given=given,
        nearly=_near(wrong),
        nearly_strangers=_near(strangers),
        telling=_telling(wrong, strangers),
        telling_strangers=_telling(strangers, strangers),
        turned=float(np.mean(beyond(turned, sizes))) if (turned := [abs(each.turned) for each in wrong]) else 0.0,
        same=float(np.mean(same)) if same else None,
        chance=float(np.mean(chance)) if same and chance else None,
        told=(decided is not None or bool(np.any(wanted, where=np.isfinite(wanted))))
        and not (without is None and not wrong and not given),
    )


def _near(found: Sequence[Likeness]) -> int:
    return sum(max(abs(each.value), abs(each.turned)) > _NEARLY for each in found)


def _given(one: Likeness, strangers: Sequence[Likeness], bar: float) -> int:
    """Numbers of a row that one gives, where they are more than what other weights give.

    Where none are drawn, as some stay open, those that are all but the original's.
    """
    if not strangers:
        return int((one.singly > OPEN).sum())
    count = _counts([one], strangers, bar)[0]
    return count if count > 2 * max(_counts(strangers, strangers, bar)) else 0


def _telling(some: Sequence[Likeness], strangers: Sequence[Likeness]) -> int:
    return sum(count > 0 for count in _counts(some, strangers, OPEN))


def _counts(some: Sequence[Likeness], strangers: Sequence[Likeness], bar: float) -> list[int]:
    """How many numbers of a row each of some tells, those aside that many other weights tell."""
    size = max((each.singly.size for each in [*some, *strangers]), default=0)
    told = [each.singly > bar for each in strangers if each.singly.size == size]
    few = np.mean(told, axis=0) <= _MANY if told else np.ones(size, np.bool_)
    return [int((each.singly > bar)[few].sum()) if each.singly.size == size else 0 for each in some]


def _without(
    wanted: NDArray[Any], bare: NDArray[Any] | None, value: float, sizes: Sequence[float], several: int
) -> float | None:
    """Likeness of the file as it lies there, where networks with other weights do not go with the original, too."""
    if abs(value) <= OPEN or max(sizes, default=0.0) <= OPEN:
        return beyond_all(value, sizes, several)
    return math.copysign(1.0, value) if _same(wanted, bare) else None


def _same(wanted: NDArray[Any], other: NDArray[Any] | None) -> bool:
    return other is not None and np.array_equal(wanted, other, equal_nan=other.dtype.kind == wanted.dtype.kind == "f")


def _in_numbers(answers: Sequence[NDArray[Any] | None]) -> list[NDArray[Any] | None]:
    """Texts as numbers of those that occur: they are decisions."""
    if all(each is None or each.dtype.kind in "fiub" for each in answers):
        return list(answers)
    texts = sorted({str(text) for each in answers if each is not None for text in each.reshape(-1).tolist()})
    numbers = {text: number for number, text in enumerate(texts)}
    return [
        None if each is None else np.array([numbers[str(text)] for text in each.reshape(-1).tolist()], np.int64)
        for each in answers
    ]


def _with_key(at_rest: ModelProto, key: bytes, rows: Rows, decide: Decide | None) -> list[list[NDArray[Any]]] | None:
    if _has(at_rest, lock_entry.ENTRY):
        return _tried(locking.unlock(at_rest, key), rows, {}, decide)
    return _tried(at_rest, rows, dict([keyinput.key_tensor(at_rest, key)]), decide)


def _tried(
    model: ModelProto, rows: Rows, fixed: Mapping[str, NDArray[Any]], decide: Decide | None
) -> list[list[NDArray[Any]]] | None:
    try:
        return answered.calls(Network(model, fixed=fixed), rows, decide)
    except ArtifactRefused:  # it does not run: that is no use of it
        return None


def _at(answers: list[NDArray[Any]] | None, place: int) -> NDArray[Any] | None:
    return None if answers is None else answers[place]


def _has(model: ModelProto, entry: str) -> bool:
    return any(each.key == entry for each in model.metadata_props)

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
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.assets.obfuscate import key_entry, keyinput, lock_entry, locking
from vambrace.assets.obfuscate.measure.difference import choices
from vambrace.assets.obfuscate.measure.equality import DECISION, decisions, run_rows
from vambrace.assets.obfuscate.measure.likeness import OPEN, Likeness, beyond, beyond_all, likeness
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

    _Calls = Sequence[Sequence[NDArray[Any]]]
    """Of each output, the answers to each call."""

_NEARLY = 0.9
_MOST = 1024
"""Numbers of a row of an output that are looked at."""
_MOST_SCORES = 64
"""Of these, at one place, where there are several."""

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
        opened: wrong keys that give the original's answers, or one of several numbers, where no other weights do.
        nearly: wrong keys that give most of them, or of their reverse.
        nearly_strangers: networks with other weights that do.
        given: numbers of a row that the file as it lies there gives in the order of the original's rows, or its
            reverse, where no other weights do.
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
    calls = _calls(network, rows, decide)
    whole = _joined(calls, calls)
    wanted = [_thinned(each, each) for each in whole]
    kept = [DECISION] if decide else weighted_outputs(original)
    places = {name: 0 if decide else network.outputs.index(name) for name in kept}
    by_input = _has(at_rest, key_entry.ENTRY)

    def thin(found: _Calls | None) -> list[NDArray[Any]] | None:
        return None if found is None else [_thinned(*each) for each in zip(_joined(found, calls), whole, strict=True)]

    alone = None if by_input else thin(_tried(at_rest, rows, {}, decide))
    tried: list[list[NDArray[Any]] | None] = []
    broken = 0
    if by_input or _has(at_rest, lock_entry.ENTRY):
        for number in range(chosen.keys):
            key = hashlib.sha256(rng.child("wrong key", number).key.to_bytes(8, "little")).digest()
            found = _with_key(at_rest, key, rows, decide)
            broken += found is not None and _breaks(calls, found)
            tried.append(thin(found))
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
        outputs.append(_output(name, answers, by_input=by_input))
    return Keyless(
        rows=len(rows),
        keys=len(tried),
        failed=sum(each is None for each in tried),
        outputs=tuple(outputs),
        broken=broken,
    )


def _breaks(wanted: _Calls, others: _Calls) -> bool:
    """Whether answers are no numbers where the original's are."""
    return any(
        one.shape == two.shape and bool((np.isfinite(one) & ~np.isfinite(two)).any())
        for first, second in zip(wanted, others, strict=True)
        for one, two in zip(first, second, strict=True)
        if one.dtype.kind == two.dtype.kind == "f"
    )


def _thinned(array: NDArray[Any], original: NDArray[Any]) -> NDArray[Any]:
    """Some places of an answer of many, and some of its scores, the same ones for arrays of the original's shape.

    Scores that the original decides for most often are among them.
    """
    if array.ndim < 2 or math.prod(array.shape[1:]) <= _MOST:
        return array
    # Classes are the second axis of maps, and else the last one.
    axis = 1 if array.ndim == 4 else array.ndim - 1
    flat = np.moveaxis(array, axis, 1).reshape(len(array), array.shape[axis], -1)
    draw = np.random.default_rng(0)
    most = _MOST if array.ndim == 2 else _MOST_SCORES
    if flat.shape[1] > most:
        decided = choices(original) if original.shape == array.shape else None
        kinds, counts = np.unique(np.zeros(0) if decided is None else decided, return_counts=True)
        often = kinds[np.argsort(-counts, kind="stable")[: most // 2]].astype(np.int64)
        others = draw.permutation(np.setdiff1d(np.arange(flat.shape[1]), often))[: most - len(often)]
        flat = flat[:, np.sort(np.concatenate([often, others]))]
    count = min(flat.shape[2], max(1, _MOST // flat.shape[1]))
    some = flat[:, :, np.sort(draw.choice(flat.shape[2], count, replace=False))]
    if array.ndim == 2:
        return some[..., 0]
    return some[..., None] if array.ndim == 4 else np.moveaxis(some, 1, -1)


@dataclass(frozen=True, slots=True)
class _Answers:
    """Of one output: the original's, and those without a key, with wrong keys, and of networks with other weights."""

    wanted: NDArray[Any]
    bare: NDArray[Any] | None
    wrong: Sequence[NDArray[Any] | None]
    strangers: Sequence[NDArray[Any] | None]


def _output(name: str, answers: _Answers, *, by_input: bool) -> KeylessOutput:
    wanted, bare, *others = _in_numbers([answers.wanted, answers.bare, *answers.wrong, *answers.strangers])
    assert wanted is not None
    decided = choices(wanted)
    # Where nothing is decided at any place, nothing could agree by merit.
    if decided is not None and (np.diff(decided.reshape(len(wanted), -1), axis=0) == 0).all():
        decided = None
    found = [likeness(wanted, each, decided, turned=True) for each in others]
    wrong, strangers = found[: len(answers.wrong)], found[len(answers.wrong) :]
    at_rest = likeness(wanted, bare, decided, turned=True)
    values, sizes = ([one.value for one in strangers], [abs(one.turned) for one in strangers])
    without = None if by_input else _without(answers, at_rest.turned, sizes)
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
            one.value > OPEN and max(values, default=0.0) <= OPEN or bool(_told(one, strangers)) for one in wrong
        ),
        given=0 if by_input else _told(at_rest, strangers),
        nearly=_near(wrong),
        nearly_strangers=_near(strangers),
        turned=float(np.mean(beyond(turned, sizes))) if (turned := [abs(each.turned) for each in wrong]) else 0.0,
        same=float(np.mean(same)) if same else None,
        chance=float(np.mean(chance)) if same and chance else None,
        told=(decided is not None or bool(np.any(wanted, where=np.isfinite(wanted))))
        and not (without is None and not wrong),
    )


def _near(found: Sequence[Likeness]) -> int:
    return sum(max(abs(each.value), abs(each.turned)) > _NEARLY for each in found)


def _told(one: Likeness, strangers: Sequence[Likeness]) -> int:
    """Numbers of a row that are as the original's, and with no other weights; not judged where none are drawn."""
    others = [each.given for each in strangers if each.given.size == one.given.size]
    return int((one.given & ~np.any(others, axis=0)).sum()) if others else 0


def _without(answers: _Answers, value: float, sizes: Sequence[float]) -> float | None:
    """Likeness of the file as it lies there, where networks with other weights do not go with the original, too."""
    if abs(value) <= OPEN or max(sizes, default=0.0) <= OPEN:
        return beyond_all(value, sizes)
    bare = answers.bare
    same = bare is not None and np.array_equal(answers.wanted, bare, equal_nan=bare.dtype.kind in "fc")
    return math.copysign(1.0, value) if same else None


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
        return _calls(Network(model, fixed=fixed), rows, decide)
    except ArtifactRefused:  # it does not run: that is no use of it
        return None


def _calls(network: Network, rows: Rows, decide: Decide | None) -> list[list[NDArray[Any]]]:
    """Of each output, the answers to each call."""
    calls = [[decisions(decide, each).reshape(-1)] if decide else each for each in run_rows(network, rows)]
    return [list(parts) for parts in zip(*calls, strict=True)]


def _joined(
    outputs: Sequence[Sequence[NDArray[Any]]], original: Sequence[Sequence[NDArray[Any]]]
) -> list[NDArray[Any]]:
    """All answers of each output; flat, where calls of the original answer with other shapes.

    A call that is answered with another shape than the original's, such as another number of boxes, has no answer.
    """
    found: list[NDArray[Any]] = []
    for parts, like in zip(outputs, original, strict=True):
        same = [part if part.shape == one.shape else _none(one) for part, one in zip(parts, like, strict=True)]
        alike = like[0].ndim and len({one.shape[1:] for one in like}) == 1
        found.append(np.concatenate(same if alike else [part.reshape(-1) for part in same]))
    return found


def _none(like: NDArray[Any]) -> NDArray[Any]:
    if like.dtype.kind in "iub":
        return np.full(like.shape, np.iinfo(np.int64).min)
    return np.full(
        like.shape, np.nan if like.dtype.kind == "f" else "\0", like.dtype if like.dtype.kind == "f" else object
    )


def _at(answers: list[NDArray[Any]] | None, place: int) -> NDArray[Any] | None:
    return None if answers is None else answers[place]


def _has(model: ModelProto, entry: str) -> bool:
    return any(each.key == entry for each in model.metadata_props)

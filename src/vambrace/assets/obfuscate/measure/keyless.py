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
from vambrace.assets.obfuscate.measure.likeness import beyond, beyond_all, likeness
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

_OPEN = 0.999
_MOST = 1024
"""Numbers of a row of an output that are looked at."""

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
        without: likeness of the file as it lies there; None where it does not run without a key.
        wrong: likeness with each wrong key.
        turned: of wrong keys, on average, for whoever turns round or moves what each of them answers.
        opened: wrong keys that give the original's answers, where no other weights do.
        strangers: likeness of networks with other weights, about 0 on average; none where they do not tell chance.
        same: share of the original's decisions that a wrong key gives on average (without wrong keys, that no key
            gives); None for numbers.
        chance: what that is for networks with other weights, or else by the frequencies of the decisions alone.
        told: whether the original's answers tell anything: neither all zero nor all no numbers.
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
    whole = _answers(network, rows, decide)
    wanted = [_thinned(each) for each in whole]
    kept = [DECISION] if decide else weighted_outputs(original)
    places = {name: 0 if decide else network.outputs.index(name) for name in kept}
    by_input = _has(at_rest, key_entry.ENTRY)
    bare = None if by_input else _tried(at_rest, rows, {}, decide)
    tried: list[list[NDArray[Any]] | None] = []
    broken = 0
    if by_input or _has(at_rest, lock_entry.ENTRY):
        for number in range(chosen.keys):
            key = hashlib.sha256(rng.child("wrong key", number).key.to_bytes(8, "little")).digest()
            found = _with_key(at_rest, key, rows, decide)
            broken += found is not None and _breaks(whole, found)
            tried.append(_thin(found))
    others = Redrawing(original)
    count = chosen.keys if others.whole else 0
    strangers = [_thin(_tried(others.draw(rng.child("other weights", at)), rows, {}, decide)) for at in range(count)]
    outputs: list[KeylessOutput] = []
    for name, place in places.items():
        answers = _Answers(
            wanted[place],
            _at(_thin(bare), place),
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


def _breaks(wanted: list[NDArray[Any]], others: list[NDArray[Any]]) -> bool:
    """Whether answers are no numbers where the original's are."""
    return any(
        one.shape == two.shape and bool((np.isfinite(one) & ~np.isfinite(two)).any())
        for one, two in zip(wanted, others, strict=True)
        if one.dtype.kind == two.dtype.kind == "f"
    )


def _thin(answers: list[NDArray[Any]] | None) -> list[NDArray[Any]] | None:
    return None if answers is None else [_thinned(each) for each in answers]


def _thinned(array: NDArray[Any]) -> NDArray[Any]:
    """Some places of an answer of many, the same ones for arrays of one shape; of scores, all of a place."""
    if array.ndim < 3 or math.prod(array.shape[1:]) <= _MOST:
        return array
    # Classes are the second axis of maps, and else the last one.
    axis = 1 if array.ndim == 4 else array.ndim - 1
    flat = np.moveaxis(array, axis, 1).reshape(len(array), array.shape[axis], -1)
    count = min(flat.shape[2], max(1, _MOST // flat.shape[1]))
    some = flat[:, :, np.sort(np.random.default_rng(0).choice(flat.shape[2], count, replace=False))]
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
    # By the frequencies alone where no other weights are drawn.
    same = [each.shares[0] for each in wrong or [at_rest] if each.shares is not None]
    chance = [each.shares[0] for each in strangers if each.shares is not None] or [
        each.shares[1] for each in wrong or [at_rest] if each.shares is not None
    ]
    return KeylessOutput(
        output=name,
        decided=decided is not None,
        without=None if by_input else beyond_all(at_rest.turned, sizes),
        wrong=beyond([each.value for each in wrong], values),
        strangers=beyond(values, values),
        opened=sum(one.value > _OPEN for one in wrong) if max(values, default=0.0) <= _OPEN else 0,
        turned=float(np.mean(beyond(turned, sizes))) if (turned := [abs(each.turned) for each in wrong]) else 0.0,
        same=float(np.mean(same)) if same else None,
        chance=float(np.mean(chance)) if same and chance else None,
        told=decided is not None or bool(np.any(wanted, where=np.isfinite(wanted))),
    )


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


def _with_key(at_rest: ModelProto, key: bytes, rows: Rows, decide: Decide | None) -> list[NDArray[Any]] | None:
    if _has(at_rest, lock_entry.ENTRY):
        return _tried(locking.unlock(at_rest, key), rows, {}, decide)
    return _tried(at_rest, rows, dict([keyinput.key_tensor(at_rest, key)]), decide)


def _tried(
    model: ModelProto, rows: Rows, fixed: Mapping[str, NDArray[Any]], decide: Decide | None
) -> list[NDArray[Any]] | None:
    try:
        return _answers(Network(model, fixed=fixed), rows, decide)
    except ArtifactRefused:  # it does not run: that is no use of it
        return None


def _answers(network: Network, rows: Rows, decide: Decide | None) -> list[NDArray[Any]]:
    """All answers of each output; flat, where calls answer with other shapes."""
    calls = [[decisions(decide, each).reshape(-1)] if decide else each for each in run_rows(network, rows)]
    found: list[NDArray[Any]] = []
    for parts in zip(*calls, strict=True):
        alike = parts[0].ndim and len({part.shape[1:] for part in parts}) == 1
        found.append(np.concatenate(parts if alike else [part.reshape(-1) for part in parts]))
    return found


def _at(answers: list[NDArray[Any]] | None, place: int) -> NDArray[Any] | None:
    return None if answers is None else answers[place]


def _has(model: ModelProto, entry: str) -> bool:
    return any(each.key == entry for each in model.metadata_props)

"""What a locked file does for whoever has no key, or a wrong one, beside the original.

Each output of the original that depends on weights is compared with that of the locked file as it lies there, and with
those that wrong keys give. What agrees by chance does not count:

- where an output holds decisions, kappa (Cohen, Educ. Psychol. Meas. 20, 1960): the share of the same decisions beyond
  the share that networks with these frequencies have in common without knowing of each other, as a part of the rest;
- where it holds numbers, or always the same decision, the rank correlation over the rows, of several numbers a row the
  mean weighted by how far each of them spreads: a score that is shifted, scaled or bent is as good as the original's
  for whoever moves the threshold.

Of the file as it lies there also counts what can be turned round: the size of the rank correlation of each number, or
of each score less the mean of all, beyond what numbers have that do not know of each other
(`vambrace.assets.obfuscate.measure.ranks`): such as by brightness, which moves them all.

1 is the original's function, 0 is chance, and of two decisions or numbers -1 is the reverse, as good as the original
for whoever turns it round. What cannot be run, or answers with other shapes or NaN, is at 0 too.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.assets.obfuscate import key_entry, keyinput, lock_entry, locking
from vambrace.assets.obfuscate.measure.difference import choices, scores
from vambrace.assets.obfuscate.measure.equality import DECISION, decisions, run_rows
from vambrace.assets.obfuscate.measure.ranks import ranked, told_apart
from vambrace.assets.obfuscate.measure.runtime import Network
from vambrace.assets.obfuscate.weighted import weighted_outputs
from vambrace.core.options import Options
from vambrace.core.options import require as hold
from vambrace.errors import ArtifactRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from onnx import ModelProto

    from vambrace.assets.obfuscate.measure.equality import Decide
    from vambrace.assets.obfuscate.measure.inputs import Rows
    from vambrace.core.rng import Streams

    _Kind = Callable[[NDArray[Any], NDArray[Any]], tuple[NDArray[np.float64], NDArray[np.float64]] | None]

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
        same: share of the original's decisions that a wrong key gives on average (without wrong keys, that no key
            gives); None for numbers.
        chance: what that would be by the frequencies of the decisions alone.
        told: whether the original's answers tell anything: neither all zero nor all no numbers.
    """

    output: str
    decided: bool
    without: float | None
    wrong: tuple[float, ...]
    same: float | None
    chance: float | None
    told: bool = True


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
        rng: of the wrong keys.
    """
    chosen = options or KeylessOptions()
    rows = real.first(chosen.rows)
    network = Network(original)
    wanted = _answers(network, rows, decide)
    kept = [DECISION] if decide else weighted_outputs(original)
    places = {name: 0 if decide else network.outputs.index(name) for name in kept}
    places = {name: place for name, place in places.items() if wanted[place].dtype.kind in "fiub"}
    by_input = _has(at_rest, key_entry.ENTRY)
    bare = None if by_input else _tried(at_rest, rows, {}, decide)
    tried: list[list[NDArray[Any]] | None] = []
    if by_input or _has(at_rest, lock_entry.ENTRY):
        for number in range(chosen.keys):
            key = hashlib.sha256(rng.child("wrong key", number).key.to_bytes(8, "little")).digest()
            tried.append(_with_key(at_rest, key, rows, decide))
    outputs: list[KeylessOutput] = []
    for name, place in places.items():
        found = [_at(each, place) for each in ([bare] if not by_input else []) + tried]
        outputs.append(_output(name, wanted[place], found, bare=not by_input))
    return Keyless(
        rows=len(rows),
        keys=len(tried),
        failed=sum(each is None for each in tried),
        outputs=tuple(outputs),
        broken=sum(each is not None and _breaks(wanted, each) for each in tried),
    )


def _breaks(wanted: list[NDArray[Any]], others: list[NDArray[Any]]) -> bool:
    """Whether answers are no numbers where the original's are."""
    return any(
        one.shape == two.shape and bool((np.isfinite(one) & ~np.isfinite(two)).any())
        for one, two in zip(wanted, others, strict=True)
        if one.dtype.kind == two.dtype.kind == "f"
    )


def _output(name: str, wanted: NDArray[Any], others: Sequence[NDArray[Any] | None], *, bare: bool) -> KeylessOutput:
    """Of others, the first is what the file answers without a key, if `bare`."""
    decided = choices(wanted)
    if decided is not None and len(np.unique(decided)) < 2:  # nothing is decided, so nothing could agree by merit
        decided = None
    keys = others[1:] if bare else others
    wrong = [_likeness(wanted, each, decided) for each in keys]
    found = [_likeness(wanted, others[0], decided, bare=True, wrong=keys)] if bare else wrong
    shares = [each.shares for each in wrong or found if each.shares is not None]
    return KeylessOutput(
        output=name,
        decided=decided is not None,
        without=found[0].turned if bare else None,
        wrong=tuple(each.value for each in wrong),
        same=float(np.mean([same for same, _ in shares])) if shares else None,
        chance=float(np.mean([chance for _, chance in shares])) if shares else None,
        told=decided is not None or bool(np.any(wanted, where=np.isfinite(wanted))),
    )


@dataclass(frozen=True, slots=True)
class _Likeness:
    """With the shares of the same decisions, found and by chance, where those are compared.

    Attributes:
        turned: of a file without a key, the value for whoever turns round or moves what it answers.
    """

    value: float
    turned: float = 0.0
    shares: tuple[float, float] | None = None


def _likeness(
    wanted: NDArray[Any],
    other: NDArray[Any] | None,
    decided: NDArray[np.int64] | None,
    *,
    bare: bool = False,
    wrong: Sequence[NDArray[Any] | None] = (),
) -> _Likeness:
    """Of answers, and, if `bare`, beyond those with wrong keys for whoever turns them round."""
    theirs = None if other is None or decided is None else choices(other)
    if other is None or other.shape != wanted.shape:
        return _Likeness(0.0)
    numbers = _numbers(wanted, other)
    if decided is None or theirs is None:
        turned = _turned(_numbers, wanted, other, wrong) if bare else 0.0
        return _Likeness(ranked(*numbers) if numbers is not None else 0.0, turned)
    kinds = np.unique(np.concatenate([decided, theirs]))
    one, two = (np.bincount(np.searchsorted(kinds, each), minlength=len(kinds)) for each in (decided, theirs))
    same, chance = float((decided == theirs).mean()), float(one @ two) / decided.size**2
    value = (same - chance) / (1 - chance)
    # Where both decide rarely for one of two, the reverse agrees less often than chance by little only.
    reverse = (same - chance) / chance if len(kinds) == 2 and same < chance else value
    ways = [_turned(kind, wanted, other, wrong) for kind in (_numbers, _beside_the_mean)] if bare else []
    return _Likeness(value, max(reverse, *ways, key=abs) if ways else reverse, (same, chance))


def _turned(kind: _Kind, wanted: NDArray[Any], other: NDArray[Any], wrong: Sequence[NDArray[Any] | None]) -> float:
    """By how much answers tell those wanted, for whoever turns them round, beyond those with wrong keys."""
    both = kind(wanted, other)
    if both is None:
        return 0.0
    pairs = (kind(wanted, each) for each in wrong if each is not None and each.shape == wanted.shape)
    return told_apart(*both, (each[1] for each in pairs if each is not None))


def _numbers(wanted: NDArray[Any], other: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Both, as far as the original's are numbers; None where the other's are none there."""
    first, second = wanted.astype(np.float64), other.astype(np.float64)
    # What is no number in the original tells nothing; where only the other gives none, it is another answer.
    told = np.isfinite(first)
    first, second = np.where(told, first, 0.0), np.where(told, second, 0.0)
    return (first, second) if np.isfinite(second).all() else None


def _beside_the_mean(
    wanted: NDArray[Any], other: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Each score less the mean of all: decisions turn with any threshold, and this does not."""
    first, second = (scores(each.astype(np.float64)) if each.dtype.kind == "f" else None for each in (wanted, other))
    if first is None or second is None:
        return None
    # A class that is left out, such as by a score of -inf, tells nothing of the others.
    told = np.isfinite(first).all(axis=0)
    if not told.any() or not np.isfinite(second[:, told]).all():
        return None
    first, second = (each[:, told] - each[:, told].mean(axis=1, keepdims=True) for each in (first, second))
    return first, second


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

"""Which elements a lock mixes: those of like size, so that layers keep theirs under any key.

Under a wrong key a network must not multiply what it takes from layer to layer, until it answers NaN: that would tell
that the key is wrong. Two things would make it do so.

*Rows.* A layer may have channels that all but died, of filters a hundredth of the others', behind which a batch
normalisation divides by as small a deviation. Were they mixed with the others, so small a divisor would meet a filter
of the usual size. So rows of a weight, one for each channel that it gives, change elements with rows of the same part
only: those within a factor of two of the median size (the root of the mean square), those beyond within four more, and
so on.

*Tensors.* Few elements have few arrangements, so small tensors of one type change elements among each other. Were all
of them one pool, layers of small numbers would get some of the large ones. So the sizes of parts in a pool lie within
half an octave. Pools without arrangements enough are joined with the next by size, if what that does to the numbers of
the larger part is little; else they stay weak, and the survey of the model lists them. So does what has few elements
and is used more than once in a run, as by loops, where a little more would be much in the end: it stays by itself.

*What parts tell.* A row that is alone in its part keeps its elements: whoever has the original sees which it is. So
parts of few rows are joined with others of like size, and where they are too many for the size of their tensor all the
same, with its largest part.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from vambrace.assets.obfuscate.lock_entry import Rows
from vambrace.assets.obfuscate.stored import bytes_of, in_a_byte
from vambrace.models.onnx_file import onnx_package

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.roles import Held

__all__ = ["ENOUGH_BITS", "Unit", "arrangements", "moving", "pools", "split"]

Unit = tuple[int, int]
"""A part of a tensor: numbers of both, from 0."""

ENOUGH_BITS = 128.0
"""Arrangements, as a power of two, that nobody tries one by one."""

_ENOUGH_ROWS = 20
"""Rows of which one is told by chance once in so many times."""

_TOLD = 0.04
"""Of the rows of a tensor, those that may be told by the part they are in, beyond chance."""

_SMALL = 4096
"""Elements from which on a tensor is locked by itself."""

_WIDTH = 0.5
_ROWS = 2.0
"""Octaves of the sizes of rows in one part."""

_ROW = 8
"""Elements of a row from which on its size is more than luck; a variance or a slope is a size by itself."""

_ROUNDS = 6
_PARTS = 10
# By how many powers of two the numbers of a pool may grow when it is joined with the next, and those of a weak one.
_HOST, _GUEST = 0.25, 3.0
_EPSILON = 1e-5


@dataclasses.dataclass(frozen=True, slots=True)
class _Pool:
    """Parts of tensors that change elements among each other.

    Attributes:
        units: which.
        elements: in all of them.
        energy: mean square of what they multiply by.
        bits: binary logarithm of the number of arrangements, at least.
        longest: elements of the longest row in it, of which others must be many times as many to hide it.
        main: whether there is all of a tensor among them, or its largest part.
        zeros: elements of parts that hold nothing else.
    """

    units: tuple[Unit, ...]
    elements: int
    energy: float
    bits: float
    longest: int
    main: bool
    zeros: int = 0

    @property
    def size(self) -> float:
        """Binary logarithm of the root of the mean square."""
        return 0.5 * math.log2(self.energy) if self.energy else -math.inf

    def joined(self, other: Self) -> _Pool:
        elements = self.elements + other.elements
        energy = (self.elements * self.energy + other.elements * other.energy) / elements
        return _Pool(
            self.units + other.units,
            elements,
            energy,
            self.bits + other.bits,
            max(self.longest, other.longest),
            self.main or other.main,
            self.zeros + other.zeros,
        )

    @property
    def weak(self) -> bool:
        """Whether there are few arrangements, or few rows."""
        return self.bits < ENOUGH_BITS or (self.elements < _ENOUGH_ROWS * self.longest and not self.main)


def split(held: Sequence[Held]) -> dict[int, Rows]:
    """Of tensors with rows of very different sizes, by their numbers: the part of each row, the smallest size first."""
    found: dict[int, Rows] = {}
    for number, each in enumerate(held):
        if each.role not in {"signed", "variance"} or not each.tensor.dims or in_a_byte(each.tensor) > 1:
            continue
        array: NDArray[Any] = onnx_package().numpy_helper.to_array(each.tensor)
        axis = int(np.argmax(array.shape)) if each.slope else each.axis
        few = axis is None or each.role == "signed" and not each.slope and array.size < _ROW * array.shape[axis]
        if axis is None or few or array.dtype.kind not in "fV":
            continue
        squares = np.moveaxis(np.square(_multiplies(array, each)), axis, 0).reshape(array.shape[axis], -1)
        rows = _energies(squares)
        if not np.isfinite(rows).all() or not rows.any():
            continue
        sizes = 0.5 * np.log2(np.where(rows > 0, rows, rows[rows > 0].min()))
        parts = np.rint((sizes - np.median(sizes)) / _ROWS).astype(np.int64)
        parts = np.clip(parts, -(_PARTS // 2), _PARTS // 2 - 1)
        if np.ptp(parts):
            found[number] = Rows(axis, np.searchsorted(np.unique(parts), parts))
    return found


def pools(held: Sequence[Held], parts: Mapping[int, Rows]) -> list[list[Unit]]:
    """Parts of a model's tensors that are locked together, in order; each of the others is locked by itself.

    Args:
        held: its tensors.
        parts: of their rows, by `split`.
    """
    kinds: dict[tuple[str, int], tuple[list[_Pool], list[_Pool]]] = {}
    for number, each in enumerate(held):
        if each.role not in {"signed", "variance"}:
            continue
        loose, others = kinds.setdefault((each.role, each.tensor.data_type), ([], []))
        large = each.role == "signed" and math.prod(each.tensor.dims) >= _SMALL
        for one in _alone(number, each, parts.get(number)):
            (others if each.often or large and not one.weak else loose).append(one)
    found = (_hidden(_pooled(loose) + others, held, parts) for loose, others in kinds.values())
    return sorted(sorted(pool.units) for pool in itertools.chain.from_iterable(found) if len(pool.units) > 1)


def moving(tensor: Any, part: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:  # noqa: ANN401
    """What moves as one in a tensor, or some of it, as numbers of which a flip changes the sign."""
    if in_a_byte(tensor) > 1:
        return np.frombuffer(bytes_of(tensor), np.uint8).astype(np.float64) - 127.5
    array: NDArray[Any] = onnx_package().numpy_helper.to_array(tensor)
    wide = (array.reshape(-1) if part is None else array.reshape(-1)[part]).astype(np.float64)
    # All bits of a whole number flip.
    return wide if array.dtype.kind in "fV" else wide + 0.5


def arrangements(array: NDArray[np.float64], *, signs: bool) -> float:
    """log2 of the number of arrangements of these values that differ; at least that where there are many."""
    values = np.abs(array[:_SMALL]) if signs else array[:_SMALL]
    counts = np.unique(values, return_counts=True)[1]
    orders = math.lgamma(values.size + 1) - sum(math.lgamma(count + 1) for count in counts.tolist())
    return orders / math.log(2) + (int(np.count_nonzero(values)) if signs else 0)


def _energies(squares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of rows, beside those of columns: where one channel that comes in has large weights, all rows have one of them.

    Numbers of both with which each row and each column of the quotients is 1 (Sinkhorn, Ann. Math. Stat. 35, 1964).
    """
    columns, rows = np.ones(squares.shape[1]), np.ones(len(squares))
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite in the end has no size
        for _ in range(_ROUNDS if columns.size > 1 else 1):
            rows = squares @ (1 / columns) / columns.size
            columns = (1 / np.where(rows > 0, rows, np.inf)) @ squares / len(rows)
            columns = np.where(columns > 0, columns, 1.0)
    return rows


def _alone(number: int, held: Held, rows: Rows | None) -> Iterator[_Pool]:
    """Each part of a tensor."""
    dims = held.tensor.dims
    counts = np.bincount(rows.parts) if rows else np.array([1 if held.axis is None else dims[held.axis]])
    for part, count in enumerate(counts.tolist()):
        some = moving(held.tensor, rows.elements(dims, part) if rows else None)
        squares = np.square(_multiplies(some, held))
        squares = squares[np.isfinite(squares)]
        energy = float(squares.mean()) if squares.size else 0.0
        bits = arrangements(some, signs=held.role == "signed")
        main = part == int(counts.argmax())
        longest = some.size // max(1, count)
        yield _Pool(((number, part),), some.size, energy, bits, longest, main, 0 if energy else some.size)


def _multiplies(array: NDArray[Any], held: Held) -> NDArray[np.float64]:
    """What a layer multiplies by."""
    wide = array.astype(np.float64)
    return wide if held.role == "signed" else 1 / np.sqrt(np.abs(wide) + _EPSILON)


def _pooled(tensors: list[_Pool]) -> list[_Pool]:
    """Pools of tensors of one type."""
    zeros = [each for each in tensors if not each.energy]
    found: list[_Pool] = []
    lowest = -math.inf
    for each in sorted((each for each in tensors if each.energy), key=lambda one: one.size):
        if found and each.size <= lowest + _WIDTH:
            found[-1] = found[-1].joined(each)
        else:
            found.append(each)
            lowest = each.size
    while (at := _weak_neighbours(found)) is not None:
        found[at : at + 2] = [found[at].joined(found[at + 1])]
    # Zeros make the numbers of a pool smaller, so they go where they are few.
    for each in sorted(zeros, key=lambda one: one.elements):
        large = max(range(len(found)), key=lambda place: found[place].elements, default=None)
        if large is not None and found[large].elements >= 2 * found[large].zeros + each.elements:
            found[large] = found[large].joined(each)
        else:
            found.append(each)
    return found


def _hidden(found: list[_Pool], held: Sequence[Held], parts: Mapping[int, Rows]) -> list[_Pool]:
    """Pools of which rows of a tensor cannot be told by their part, but for a few: else its parts are joined again."""
    for number in sorted({number for pool in found for number, _ in pool.units if number in parts}):
        counts = np.bincount(parts[number].parts)
        # Where a row was lie some of its own elements, and those of others in the pool.
        sizes = counts * (math.prod(held[number].tensor.dims) // counts.sum())
        while True:
            place = {part: pool for pool in found for each, part in pool.units if each == number}
            main = place[int(counts.argmax())]
            told = {part: sizes[part] / pool.elements for part, pool in place.items() if pool is not main}
            if sum(told.values()) <= _TOLD * counts.sum():
                break
            other = place[max(told, key=lambda part: told[part])]
            found = [each for each in found if each is not main and each is not other] + [main.joined(other)]
    return found


def _weak_neighbours(found: list[_Pool]) -> int | None:
    """Where two pools, in order of size, are to be joined: the nearest of which one is weak."""
    best: tuple[float, int] | None = None
    for at, (low, high) in enumerate(itertools.pairwise(found)):
        grown = low.joined(high).size - low.size
        if (low.weak or high.weak) and grown <= (_GUEST if low.weak else _HOST):
            best = min(best or (math.inf, 0), (high.size - low.size, at))
    return best[1] if best else None

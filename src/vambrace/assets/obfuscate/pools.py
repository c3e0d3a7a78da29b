"""Which small tensors a lock mixes: as many as have numbers of like size, so that layers keep theirs under any key.

Few elements have few arrangements, so small tensors of one type change elements among each other. Were all of them one
pool, layers of small numbers would get some of the large ones, and a network of many layers would multiply what it
takes again and again, until it answers NaN: that would tell a wrong key. So the sizes of tensors in a pool, the roots
of their mean squares, lie within half an octave, and what is used more than once in a run, as by loops, stays by itself
where it has arrangements enough. Pools without enough of them are joined with the next by size, if what that does to
the numbers of the larger part is little; else they stay weak, and the survey of the model lists them.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import TYPE_CHECKING, Self

import numpy as np

from vambrace.models.onnx_file import onnx_package

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.roles import Held

__all__ = ["ENOUGH_BITS", "arrangements", "pools"]

ENOUGH_BITS = 128.0
"""Arrangements, as a power of two, that nobody tries one by one."""

_SMALL = 4096
"""Elements from which on a tensor is locked by itself."""

_WIDTH = 0.5
# By how many powers of two the numbers of a pool may grow when it is joined with the next, and those of a weak one.
_HOST, _GUEST = 0.25, 3.0
_EPSILON = 1e-5


@dataclasses.dataclass(frozen=True, slots=True)
class _Pool:
    """Tensors that change elements among each other.

    Attributes:
        numbers: of the tensors.
        elements: in all of them.
        energy: mean square of what they multiply by.
        bits: binary logarithm of the number of arrangements, at least.
    """

    numbers: tuple[int, ...]
    elements: int
    energy: float
    bits: float

    @property
    def size(self) -> float:
        """Binary logarithm of the root of the mean square."""
        return 0.5 * math.log2(self.energy) if self.energy else -math.inf

    def joined(self, other: Self) -> _Pool:
        elements = self.elements + other.elements
        energy = (self.elements * self.energy + other.elements * other.energy) / elements
        return _Pool(self.numbers + other.numbers, elements, energy, self.bits + other.bits)


def pools(held: Sequence[Held]) -> list[list[int]]:
    """Numbers of a model's tensors that are locked together, in order; each of the others is locked by itself."""
    kinds: dict[tuple[str, int], list[_Pool]] = {}
    for number, each in enumerate(held):
        if each.role not in {"signed", "variance"}:
            continue
        if each.role == "signed" and math.prod(each.tensor.dims) >= _SMALL:
            continue
        one = _alone(number, each)
        if one.bits < ENOUGH_BITS or not each.often:
            kinds.setdefault((each.role, each.tensor.data_type), []).append(one)
    found = itertools.chain.from_iterable(map(_pooled, kinds.values()))
    return sorted(sorted(pool.numbers) for pool in found if len(pool.numbers) > 1)


def arrangements(array: NDArray[np.float64], *, signs: bool) -> float:
    """log2 of the number of arrangements of these values that differ; at least that where there are many."""
    values = np.abs(array[:_SMALL]) if signs else array[:_SMALL]
    counts = np.unique(values, return_counts=True)[1]
    orders = math.lgamma(values.size + 1) - sum(math.lgamma(count + 1) for count in counts.tolist())
    return orders / math.log(2) + (int(np.count_nonzero(values)) if signs else 0)


def _alone(number: int, held: Held) -> _Pool:
    array = onnx_package().numpy_helper.to_array(held.tensor).reshape(-1).astype(np.float64)
    signs = held.role == "signed"
    multiplies = array if signs else 1 / np.sqrt(np.abs(array) + _EPSILON)
    squares = np.square(multiplies[np.isfinite(multiplies)])
    energy = float(squares.mean()) if squares.size else 0.0
    return _Pool((number,), array.size, energy, arrangements(array, signs=signs))


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
        if large is not None and found[large].elements >= 2 * _zeros(found[large], zeros) + each.elements:
            found[large] = found[large].joined(each)
        else:
            found.append(each)
    return found


def _zeros(pool: _Pool, zeros: list[_Pool]) -> int:
    return sum(each.elements for each in zeros if each.numbers[0] in pool.numbers)


def _weak_neighbours(found: list[_Pool]) -> int | None:
    """Where two pools, in order of size, are to be joined: the nearest of which one has few arrangements."""
    best: tuple[float, int] | None = None
    for at, (low, high) in enumerate(itertools.pairwise(found)):
        grown = low.joined(high).size - low.size
        if min(low.bits, high.bits) < ENOUGH_BITS and grown <= (_HOST if low.bits >= ENOUGH_BITS else _GUEST):
            best = min(best or (math.inf, 0), (high.size - low.size, at))
    return best[1] if best else None

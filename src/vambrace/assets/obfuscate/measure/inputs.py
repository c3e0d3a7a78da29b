"""Inputs to measure on: real rows, random rows of the same range, and rows that trip up careless rewrites.

| kind | rows | what is asked of them |
|---|---|---|
| `real` | what the caller gives | equality |
| `random` | uniform over each input's real range | equality |
| `edge` | all zero, all at the low end, all at the high end | equality |
| `nan` | a real row with one NaN, and all NaN | NaN in the same places |
| `infinite` | a real row with one infinity, of either sign | the same in the exact profile, else reported |
| `extreme` | a real row times 2^100 and times 2^-140 | reported: no range proof covers it |

Rows are arrays (n, ...), one an input of the original model, in its order. A row is one sample, and rows are put
together along the first axis; where an array has one axis more than the model's input, each row is a whole call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.measure.runtime import Network, Taken
    from vambrace.core.rng import Streams

__all__ = [
    "KINDS",
    "Kind",
    "Rows",
    "edge_rows",
    "extreme_rows",
    "infinite_rows",
    "nan_rows",
    "random_rows",
    "read_rows",
]

Kind = Literal["real", "random", "edge", "nan", "infinite", "extreme"]
KINDS: tuple[Kind, ...] = ("real", "random", "edge", "nan", "infinite", "extreme")


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Samples for a network.

    Attributes:
        arrays: one an input, all of n rows.
        batch: rows of one call; 1 for whole calls.
        whole: whether each row is a whole call, its batch axis included.
    """

    arrays: tuple[NDArray[Any], ...]
    batch: int
    whole: bool

    def __len__(self) -> int:
        return len(self.arrays[0])

    def first(self, count: int) -> Rows:
        """The first rows, at most `count`."""
        return Rows(tuple(array[:count] for array in self.arrays), self.batch, self.whole)

    def calls(self) -> Iterator[tuple[int, list[NDArray[Any]]]]:
        """How many rows a call is about, and its arrays. A short last call is filled up with its last row."""
        if self.whole:
            for row in range(len(self)):
                yield 1, [array[row] for array in self.arrays]
            return
        for start in range(0, len(self), self.batch):
            parts = [array[start : start + self.batch] for array in self.arrays]
            count = len(parts[0])
            short = self.batch - count
            yield (
                count,
                [np.concatenate([part, np.repeat(part[-1:], short, axis=0)]) if short else part for part in parts],
            )

    def like(self, arrays: Sequence[NDArray[Any]]) -> Rows:
        """Other rows for the same network."""
        return Rows(tuple(arrays), self.batch, self.whole)


def read_rows(
    inputs: NDArray[Any] | Sequence[NDArray[Any]] | Mapping[str, NDArray[Any]], network: Network, *, batch: int = 1
) -> Rows:
    """The caller's inputs as rows for `network`.

    Args:
        inputs: an array for a model of one input, or arrays in its order, or arrays by its names.
        network: the original.
        batch: rows of one call, where the model leaves that free; where it states a number, that is taken.

    Raises:
        ConfigError: E820, for inputs that the model does not take, or for no rows at all.
    """
    taken = network.inputs
    if isinstance(inputs, Mapping):
        if set(inputs) != {each.name for each in taken}:
            raise _refused(f"inputs named {sorted(inputs)}", f"the names {[each.name for each in taken]}")
        arrays = [np.asarray(inputs[each.name]) for each in taken]
    else:
        given = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
        arrays = [np.asarray(each) for each in given]
    counts = {array.shape[0] if array.ndim else 0 for array in arrays}
    if len(arrays) != len(taken) or len(counts) != 1 or counts == {0}:
        shapes = [array.shape for array in arrays]
        raise _refused(f"inputs of shapes {shapes}", f"{len(taken)} arrays of equally many rows, at least one")
    whole = {array.ndim == len(each.shape) + 1 for array, each in zip(arrays, taken, strict=True)}
    if len(whole) != 1:
        raise _refused("rows and whole calls side by side", "either for every input")
    cast_arrays = [_fitting(array, each, whole == {True}) for array, each in zip(arrays, taken, strict=True)]
    floats = [array for array in cast_arrays if array.dtype.kind == "f" and array.size]
    if floats and not any(np.isfinite(array).any() for array in floats):
        raise _refused("inputs without a finite number", "real inputs: answers to NaN say nothing")
    fixed = [each.shape[0] for each in taken if each.shape and each.shape[0]]
    return Rows(tuple(cast_arrays), 1 if whole == {True} else (fixed[0] if fixed else batch) or 1, whole == {True})


def random_rows(real: Rows, count: int, rng: Streams) -> Rows:
    """`count` rows, uniform over each input's range: whole numbers for whole numbers."""
    drawn: list[NDArray[Any]] = []
    for place, array in enumerate(real.arrays):
        shape = (count, *array.shape[1:])
        uniform = rng.child("random", place).integers(2**32, shape=shape) / 2.0**32
        if array.dtype.kind == "f":
            low, high = _range(array)
            values = low + (high - low) * uniform
        else:
            low, high = int(array.min()), int(array.max())
            values = low + np.floor(uniform * (high - low + 1))
        drawn.append(values.astype(array.dtype))
    return real.like(drawn)


def edge_rows(real: Rows) -> Rows | None:
    """Zero, the low end and the high end of every floating input; None where there is none."""
    if not _floats(real):
        return None
    ends = [(0.0, *_range(array)) if array.dtype.kind == "f" else (None,) * 3 for array in real.arrays]
    rows = [
        np.stack([np.full_like(array[0], value) if value is not None else array[0] for value in values])
        for array, values in zip(real.arrays, ends, strict=True)
    ]
    return real.like(rows)


def nan_rows(real: Rows) -> Rows | None:
    """The first row with one NaN, and all NaN, in every floating input."""
    if not _floats(real):
        return None
    rows = [_with(array[0], np.nan, np.nan) for array in real.arrays]
    for each in rows:
        if each.dtype.kind == "f":
            each[1] = np.nan
    return real.like(rows)


def infinite_rows(real: Rows) -> Rows | None:
    """The first row with one positive and with one negative infinity, in every floating input."""
    if not _floats(real):
        return None
    return real.like([_with(array[0], np.inf, -np.inf) for array in real.arrays])


def extreme_rows(real: Rows) -> Rows | None:
    """The first row times 2^100 and times 2^-140 (float16: 2^8 and 2^-20), in every floating input."""
    if not _floats(real):
        return None
    return real.like([_stretched(array[0]) for array in real.arrays])


def _with(row: NDArray[Any], *values: float) -> NDArray[Any]:
    """Copies of a row, each with one of the values in its middle, where it holds floats."""
    rows = np.stack([row] * len(values))
    if row.dtype.kind == "f" and row.size:
        rows.reshape(len(values), -1)[:, row.size // 2] = values
    return rows


def _stretched(row: NDArray[Any]) -> NDArray[Any]:
    if row.dtype.kind != "f":
        return np.stack([row] * 2)
    up, down = (8, -20) if row.dtype.itemsize == 2 else (100, -140)
    return np.stack([np.ldexp(row, up), np.ldexp(row, down)]).astype(row.dtype)


def _floats(real: Rows) -> bool:
    return any(array.dtype.kind == "f" for array in real.arrays)


def _range(array: NDArray[Any]) -> tuple[float, float]:
    finite = array[np.isfinite(array)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)


def _fitting(array: NDArray[Any], taken: Taken, whole: bool) -> NDArray[Any]:
    stated, sizes = taken.shape[0 if whole else 1 :], array.shape[1:]
    same = len(stated) == len(sizes) and all(one in {None, other} for one, other in zip(stated, sizes, strict=True))
    # A model may state no rank, and nothing else has rows of no axes.
    same = same or not (taken.shape or whole)
    if not same or (array.dtype.kind != taken.dtype.kind):
        raise _refused(
            f"rows of shape {sizes} and type {array.dtype} for the input {taken.name[:60]!r}",
            f"shape {stated} and type {taken.dtype}",
        )
    return np.ascontiguousarray(array, dtype=taken.dtype)


def _refused(seen: str, expected: str) -> ConfigError:
    return ConfigError("E820", seen=seen, expected=expected, fix="give one array (n, ...) for each input of the model")

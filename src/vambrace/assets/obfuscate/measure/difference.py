"""How far two arrays of answers are apart, element by element: by value, by the spacing of floats, and by decision.

- `differing`: elements whose bits differ. Every NaN counts as the same value; +0 and -0 do not.
- `max_abs`: infinite where one side is NaN or infinite and the other is not the same.
- `max_relative`: |a - b| / |a| over elements with a != 0; `max_row`: the largest |a - b| of a sample over the largest
  |a| of that sample, which is what rounding in a sum is measured by (Higham, Accuracy and Stability, 2002, 3.1).
- `max_ulp`: representable numbers between the two (Goldberg, ACM Comput. Surv. 23, 1991); 0 for +0 and -0.
- `top1`: how many decisions are the same. A decision is the largest value along the last axis of scores (n, k) or
  (n, places, k), or along the channels of maps (n, k, height, width); outputs of other ranks hold none. Of those that
  differ, `near_ties` are such that the original's own margin is below 1e-5 of the largest value beside it.

    >>> found = compare([np.array([[1.0, 2.0]])], [np.array([[1.0, 2.0 + 2**-51]])])
    >>> found.max_ulp, found.differing, found.top1_same, found.top1_of
    (1.0, 1, 1, 1)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Difference", "NOTHING", "choices", "compare", "joined", "scores"]

_NEAR = 1e-5
_SMALLEST_DECISION = 2  # of the last axis: with one value there is nothing to decide


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What `compare` finds; `joined` adds two up.

    Attributes:
        rows: samples.
        elements: of all of them.
        differing, max_abs, max_relative, max_row, max_ulp: as above.
        largest: of the original's finite |a|, over all samples.
        nan_apart: elements where exactly one side is NaN.
        shapes_apart: calls whose outputs had different shapes; nothing else is known about those.
        top1_same, top1_of: decisions, 0 of 0 where the output holds none.
        near_ties: see above.
    """

    rows: int = 0
    elements: int = 0
    differing: int = 0
    max_abs: float = 0.0
    max_relative: float = 0.0
    max_row: float = 0.0
    max_ulp: float = 0.0
    largest: float = 0.0
    nan_apart: int = 0
    shapes_apart: int = 0
    top1_same: int = 0
    top1_of: int = 0
    near_ties: int = 0

    @property
    def of_output(self) -> float:
        """`max_abs` over `largest`."""
        return self.max_abs / self.largest if self.largest else (0.0 if self.max_abs == 0 else np.inf)

    @property
    def exact(self) -> bool:
        """Whether every element has the same bits."""
        return not self.differing and not self.shapes_apart


NOTHING = Difference()


def compare(original: Sequence[NDArray[Any]], other: Sequence[NDArray[Any]]) -> Difference:
    """Answers of calls, sample by sample: both lists hold one array (rows, ...) a call."""
    found = NOTHING
    for one, two in zip(original, other, strict=True):
        found = joined(found, _one(one, two))
    return found


def joined(one: Difference, two: Difference) -> Difference:
    """Of the samples of both."""
    largest = {name: max(getattr(one, name), getattr(two, name)) for name in _LARGEST}
    return replace(one, **largest, **{name: getattr(one, name) + getattr(two, name) for name in _COUNTS})


_LARGEST = ("max_abs", "max_relative", "max_row", "max_ulp", "largest")
_COUNTS = (
    "rows",
    "elements",
    "differing",
    "nan_apart",
    "shapes_apart",
    "top1_same",
    "top1_of",
    "near_ties",
)


def choices(answers: NDArray[Any]) -> NDArray[np.int64] | None:
    """The decisions (n,) of an output, by `top1`; whole numbers of a vector are decisions as they are; else None."""
    if answers.dtype.kind in "iu" and answers.ndim == 1:
        return answers.astype(np.int64)
    found = scores(answers) if answers.dtype.kind == "f" else None
    return None if found is None else found.argmax(axis=1).astype(np.int64)


def _one(a: NDArray[Any], b: NDArray[Any]) -> Difference:
    rows = len(a) if a.ndim else 1
    if a.shape != b.shape or a.dtype != b.dtype:
        return Difference(
            rows=rows, shapes_apart=1, max_abs=np.inf, max_relative=np.inf, max_row=np.inf, max_ulp=np.inf
        )
    if a.size == 0:
        return Difference(rows=rows)
    if a.dtype.kind != "f":
        return _of_whole_numbers(a, b, rows)
    nan_a, nan_b = np.isnan(a), np.isnan(b)
    both_nan = nan_a & nan_b
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        apart = np.abs(wide_a - wide_b)
        apart = np.where(both_nan | (wide_a == wide_b), 0.0, np.where(np.isnan(apart), np.inf, apart))
        relative = np.where(apart == 0, 0.0, apart / np.abs(np.where(nan_a, 0.0, wide_a)))
        height = np.abs(np.where(np.isfinite(wide_a), wide_a, 0.0))
    by_row = apart.reshape(rows, -1).max(axis=1)
    tops = height.reshape(rows, -1).max(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        rowwise = np.where(by_row == 0, 0.0, by_row / tops)
    spaced = _ordered(a).astype(np.float64), _ordered(b).astype(np.float64)
    exact_ulp = np.abs(_ordered(a) - _ordered(b)).astype(np.float64)
    # Two's complement overflows only where values of opposite sign are both huge; floats say how far those are.
    ulp = np.where(np.abs(spaced[0] - spaced[1]) < 2.0**62, exact_ulp, np.abs(spaced[0] - spaced[1]))
    ulp = np.where(both_nan, 0.0, np.where(nan_a != nan_b, np.inf, ulp))
    relative = relative[wide_a != 0]
    return replace(
        _decided(a, b),
        rows=rows,
        elements=a.size,
        differing=int(((_bits(a) != _bits(b)) & ~both_nan).sum()),
        max_abs=float(apart.max()),
        max_relative=float(relative.max()) if relative.size else 0.0,
        max_row=float(rowwise.max()),
        max_ulp=float(ulp.max()),
        largest=float(tops.max()),
        nan_apart=int((nan_a != nan_b).sum()),
    )


def _of_whole_numbers(a: NDArray[Any], b: NDArray[Any], rows: int) -> Difference:
    different = int((a != b).sum())
    apart = 0.0
    if different and a.dtype.kind in "iu":
        apart = float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
    elif different:
        apart = np.inf
    return Difference(
        rows=rows,
        elements=a.size,
        differing=different,
        max_abs=apart,
        max_relative=np.inf if different else 0.0,
        max_row=np.inf if different else 0.0,
        max_ulp=apart,
    )


def _decided(a: NDArray[Any], b: NDArray[Any]) -> Difference:
    flat_a, flat_b = scores(a), scores(b)
    if flat_a is None or flat_b is None:
        return NOTHING
    one, two = flat_a.argmax(axis=1), flat_b.argmax(axis=1)
    other = one != two
    rows = flat_a[other].astype(np.float64)
    with np.errstate(invalid="ignore"):
        margin = rows[np.arange(len(rows)), one[other]] - rows[np.arange(len(rows)), two[other]]
        close = margin <= _NEAR * np.abs(rows).max(axis=1, initial=0.0)
    return Difference(top1_same=int((~other).sum()), top1_of=len(one), near_ties=int(close.sum()))


def scores(array: NDArray[Any]) -> NDArray[Any] | None:
    """Scores (decisions, k) of an output; None where it holds none."""
    if array.ndim == 4:  # maps: a class for each place
        array = np.moveaxis(array, 1, -1)
    if array.ndim not in {2, 3, 4} or array.shape[-1] < _SMALLEST_DECISION:
        return None
    return array.reshape(-1, array.shape[-1])


def _bits(array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def _ordered(array: NDArray[Any]) -> NDArray[np.int64]:
    """Whole numbers in the order of the floats, one apart for neighbours; both zeros are 0."""
    bits = np.ascontiguousarray(array).view(f"i{array.dtype.itemsize}").astype(np.int64)
    lowest = -(2**63) if array.dtype.itemsize == 8 else -(1 << (8 * array.dtype.itemsize - 1))
    return np.where(bits < 0, lowest - bits, bits)

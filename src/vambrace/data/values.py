"""Values against bounds: which pairs of type and bounds are certain, and what a value outside most likely means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.errors import DataRefused

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Extent", "stated_bounds"]

_PIXEL_BOUNDS = ((0.0, 1.0), (0.0, 255.0))
_NARROW = 0.02


def stated_bounds(dtype: np.dtype[Any], bounds: tuple[float, float] | None) -> tuple[float, float]:
    """The bounds that inputs of a stored type lie in.

    Raises:
        DataRefused: E309, where the contract leaves them open or they make no sense for the type.
    """
    if dtype == np.uint8:
        if bounds not in (None, *_PIXEL_BOUNDS):
            raise DataRefused(
                "E309",
                seen=f"uint8 values with bounds {bounds}",
                expected="bounds (0, 1), which divide by 255, or (0, 255), which keep the values",
                fix="correct --bounds, or store the values as float32 if they are no pixels",
            )
        return bounds or (0.0, 1.0)
    if bounds is not None:
        return bounds
    if dtype.kind == "b":
        return 0.0, 1.0
    raise DataRefused(
        "E309",
        seen=f"{dtype} values and no bounds",
        expected="the box of valid inputs, stated",
        fix="state it, such as --bounds 0,1; it is what the model is fed, before any normalisation inside it",
    )


@dataclass(slots=True)
class Extent:
    """Smallest and largest value seen, and the first that lies outside the bounds."""

    low: float = np.inf
    high: float = -np.inf
    outside: tuple[int, float] | None = None

    def add(self, decoded: NDArray[Any], positions: NDArray[np.int64], bounds: tuple[float, float]) -> None:
        """Look at decoded samples, which lie at `positions` of the source."""
        low, high = float(decoded.min()), float(decoded.max())
        finite = np.isfinite(low) and np.isfinite(high)
        if (
            decoded.dtype != np.uint8
            and self.outside is None
            and not (finite and low >= np.float32(bounds[0]) and high <= np.float32(bounds[1]))
        ):
            flat = decoded.reshape(len(decoded), -1)
            wrong = ~((flat >= np.float32(bounds[0])) & (flat <= np.float32(bounds[1])))
            row, column = (int(at) for at in np.argwhere(wrong)[0])
            self.outside = int(positions[row]), float(flat[row, column])
        if not finite:
            known = decoded[np.isfinite(decoded)]
            low, high = (float(known.min()), float(known.max())) if known.size else (np.inf, -np.inf)
        self.low, self.high = min(self.low, low), max(self.high, high)

    def judge(self, dtype: np.dtype[Any], bounds: tuple[float, float], *, stated: bool) -> tuple[str, ...]:
        """Warnings about what was seen.

        Raises:
            DataRefused: E309 for uint8 flags that may be pixels, E310 for a value outside the bounds.
        """
        low, high = bounds
        if dtype == np.uint8 and bounds == (0.0, 1.0) and self.high == 1:
            raise DataRefused(
                "E309",
                seen="uint8 values that are all 0 or 1" + (", with bounds (0, 1)" if stated else ""),
                expected="pixels from 0 to 255, or flags of another type",
                fix="store flags as float32 or bool; for nearly black pixels state --bounds 0,255",
            )
        if self.outside is not None:
            at, value = self.outside
            raise DataRefused(
                "E310",
                seen=f"sample {at} holds {value:.6g} (all samples: {self.low:.6g} to {self.high:.6g})",
                expected=f"finite values from {low:g} to {high:g}",
                fix=self._likely(value, bounds),
            )
        if dtype != np.uint8 and self.high > self.low and self.high - self.low < _NARROW * (high - low):
            return (
                f"values span only {self.low:.4g} to {self.high:.4g} of the bounds {low:g} to {high:g}: "
                "are the bounds in the data's units?",
            )
        return ()

    def _likely(self, value: float, bounds: tuple[float, float]) -> str:
        if not np.isfinite(value):
            return "find out where the value comes from, and leave the sample out"
        if self.low < 0 and self.low >= -1.0001 and self.high <= 1.0001:
            return "the values look scaled to -1..1: state --bounds=-1,1"
        if self.low < 0 and self.low >= -6 and self.high <= 6:
            return (
                "the values look normalised by mean and standard deviation (ImageNet's give -2.12 to 2.64): "
                "store them without, and let the model normalise: --mean and --std"
            )
        if self.low >= 0 and 1 < self.high <= 255 and bounds[1] <= 1:
            return "the values look like 0..255: state --bounds 0,255, or store uint8"
        return f"state the true range, such as --bounds={self.low:.6g},{self.high:.6g}"

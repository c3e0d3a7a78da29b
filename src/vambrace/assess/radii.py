"""Which radii a profile attacks at, when the user names none: one stated rule by kind of input.

All in parts of the span of the bounds, so that inputs in 0..255 get 255 times the radii of inputs in 0..1.

| input | linf radii | the main one |
|---|---|---|
| grey pictures up to 32 pixels (digits) | 0.05 0.1 0.2 0.3 0.4 | 0.3 |
| pictures up to 64 pixels | 1 2 4 8 16 / 255 | 8/255 |
| larger pictures | 0.5 1 2 4 8 / 255 | 4/255 |
| features, series, anything else | 0.01 0.02 0.05 0.1 0.2 | 0.1 |

They are those of the field's benchmarks: Madry et al. 2018 for MNIST, RobustBench (arXiv 2010.09670) for CIFAR-10 and
ImageNet; for features there is no common radius, and a tenth of the range is a stated choice. An l2 radius is a quarter
of
the linf radius times the square root of the number of values, to two digits: 2.1 for MNIST, 0.43 for CIFAR-10.

    >>> radii((3, 32, 32), 1.0, "linf").main == 8 / 255
    True
    >>> radii((3, 32, 32), 255.0, "linf").main
    8.0
    >>> radii((1, 28, 28), 1.0, "l2").main
    2.1
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Radii", "radii"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Radii:
    """Radii in the units of the inputs, ascending.

    Attributes:
        curve: for the picture of accuracy against radius.
        main: the one that a single number is given at.
    """

    curve: tuple[float, ...]
    main: float

    def up_to_main(self, count: int) -> tuple[float, ...]:
        """The `count` radii of the curve that end at the main one."""
        end = self.curve.index(self.main) + 1
        return self.curve[max(0, end - count) : end]


def radii(shape: Sequence[int], span: float, norm: Literal["l2", "linf"]) -> Radii:
    """The radii for samples of `shape` whose bounds are `span` apart."""
    parts, main = _parts(shape)
    scale = Fraction(span)
    if norm == "linf":
        curve = [float(part * scale) for part in parts]
    else:
        root = math.sqrt(math.prod(shape)) / 4
        curve = [_two_digits(float(part * scale) * root) for part in parts]
    return Radii(curve=tuple(curve), main=curve[parts.index(main)])


def _parts(shape: Sequence[int]) -> tuple[list[Fraction], Fraction]:
    if len(shape) != 3:
        return [Fraction(each, 100) for each in (1, 2, 5, 10, 20)], Fraction(1, 10)
    side = max(shape[1:])
    if shape[0] == 1 and side <= 32:
        return [Fraction(each, 100) for each in (5, 10, 20, 30, 40)], Fraction(3, 10)
    if side <= 64:
        return [Fraction(each, 255) for each in (1, 2, 4, 8, 16)], Fraction(8, 255)
    return [Fraction(each, 510) for each in (1, 2, 4, 8, 16)], Fraction(4, 255)


def _two_digits(value: float) -> float:
    return float(f"{value:.2g}")

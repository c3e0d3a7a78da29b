"""Severity 1..5 as one number a step: published tables by image size, or five values of your own.

The tables are those that made the corruption benchmarks: CIFAR-10-C for 32 x 32 images, Tiny-ImageNet-C for
64 x 64, ImageNet-C for 224 x 224 (Hendrycks, Dietterich, ICLR 2019, arXiv:1903.12261, and the authors' scripts).
An image takes the table of its shorter side: below 48 pixels the first, below 128 the second, else the third.
Inputs that are no images take the first.

    >>> table = Published(small=(1, 2, 3, 4, 5), medium=(2, 3, 4, 5, 6), large=(3, 4, 5, 6, 7))
    >>> level(None, table, severity=2, side=28), level(None, table, severity=2, side=224)
    (2, 4)
    >>> level((0.1, 0.2, 0.3, 0.4, 0.5), table, severity=2, side=28)
    0.2
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from vambrace.core.options import Ratio, require

__all__ = ["Five", "Published", "SIDES", "check_five", "check_severity", "level", "table_side"]

Five = tuple[Ratio, Ratio, Ratio, Ratio, Ratio]

SIDES = (32, 64, 224)
"""The image sides that the three tables were published for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One value a severity for each of the three sizes."""

    small: Five
    medium: Five
    large: Five


def table_side(side: int | None) -> int:
    """The published size whose table an image with this shorter side takes; None is no image.

    >>> [table_side(side) for side in (None, 8, 47, 48, 127, 128, 1024)]
    [32, 32, 32, 64, 64, 224, 224]
    """
    if side is None or side < 48:
        return SIDES[0]
    return SIDES[1] if side < 128 else SIDES[2]


def level(own: Five | None, published: Published, *, severity: int, side: int | None) -> float:
    """The number of this severity: the caller's own, else the published one for this size."""
    check_severity(severity)
    table = (published.small, published.medium, published.large)[SIDES.index(table_side(side))]
    return (own or table)[severity - 1]


def check_five(
    name: str, values: tuple[float, ...] | None, *, low: float, high: float, order: Literal["rising", "falling"]
) -> None:
    """Refuse five values that are not finite, not within [low, high], or not strictly in order of strength."""
    if values is None:
        return
    require(
        len(values) == 5,
        seen=f"{len(values)} values in {name}",
        expected="one value for each severity 1 to 5",
        fix=f"give {name} five values",
        code="E194",
    )
    require(
        all(math.isfinite(value) and low <= value <= high for value in values),
        seen=f"{name} {values}",
        expected=f"values from {low:g} to {high:g}",
        fix=f"correct {name}",
        code="E194",
    )
    steps = [later - earlier for earlier, later in zip(values, values[1:], strict=False)]
    require(
        all(step > 0 for step in steps) if order == "rising" else all(step < 0 for step in steps),
        seen=f"{name} {values}",
        expected=f"strictly {order} values: each severity is stronger than the one before",
        fix=f"sort {name} and give every severity its own value",
        code="E194",
    )


def check_severity(severity: int) -> None:
    """Refuse what is not a whole number from 1 to 5."""
    require(
        not isinstance(severity, bool) and isinstance(severity, int) and 1 <= severity <= 5,  # pyright: ignore[reportUnnecessaryIsInstance]
        seen=f"severity {severity!r}",
        expected="a whole number from 1 (mild) to 5 (strong)",
        fix="choose one of 1, 2, 3, 4, 5; the unchanged input is severity 0 and needs no perturbation",
        code="E193",
    )

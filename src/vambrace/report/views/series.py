"""Points for pictures, taken out of JSON with suspicion: a malformed series gives no picture, never a failure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["numbers", "same_length"]


def numbers(series: Mapping[str, Any], name: str) -> tuple[float, ...] | None:
    """The list `name` as finite floats; None where it is missing, empty or holds anything else.

    >>> numbers({"eps": [0, 0.5]}, "eps"), numbers({"eps": [0, None]}, "eps"), numbers({"eps": "0"}, "eps")
    ((0.0, 0.5), None, None)
    """
    values = series.get(name)
    if not isinstance(values, list | tuple) or not values:
        return None
    found: list[float] = []
    for value in cast("list[object]", values):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return None
        found.append(float(value))
    return tuple(found)


def same_length(*columns: tuple[float, ...] | None) -> bool:
    """Whether all columns are there and equally long."""
    return None not in columns and len({len(column) for column in columns if column is not None}) == 1

"""A value with its 95 % interval as a small bar that stands beside the number in a table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from vambrace.report.plots.svg import element

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["interval_bar"]

_WIDTH = 140.0
_HEIGHT = 18.0
_EDGE = 5.0


def interval_bar(
    value: float,
    low: float | None = None,
    high: float | None = None,
    *,
    threshold: float | None = None,
    reliable: bool = True,
) -> Markup:
    """The bar of a value in 0..1; `threshold` is what a gate asked for.

    The number stands beside it as text, so the bar is hidden from screen readers. Values outside 0..1
    are drawn at the edge.
    """
    middle = _HEIGHT / 2
    parts = [element("line", x1=_x(0), x2=_x(1), y1=middle, y2=middle, class_="track")]
    if low is not None and high is not None:
        parts.append(element("line", x1=_x(low), x2=max(_x(high), _x(low) + 1), y1=middle, y2=middle, class_="range"))
    if threshold is not None:
        parts.append(element("line", x1=_x(threshold), x2=_x(threshold), y1=1, y2=_HEIGHT - 1, class_="threshold"))
    parts.append(element("circle", cx=_x(value), cy=middle, r=4, class_="dot" if reliable else "dot hollow"))
    return element(
        "svg",
        *parts,
        viewbox=f"0 0 {_WIDTH:.0f} {_HEIGHT:.0f}",
        class_="interval",
        aria_hidden="true",
        focusable="false",
    )


def _x(value: float) -> float:
    inside = min(max(value, 0.0), 1.0) if math.isfinite(value) else 0.0
    return _EDGE + inside * (_WIDTH - 2 * _EDGE)

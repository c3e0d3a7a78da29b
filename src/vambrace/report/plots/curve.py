"""Accuracy against the radius of the attack: one line a check, its interval as a band, labelled at its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vambrace.report.plots.svg import element, path, picture, spread
from vambrace.report.text import eps_text, norm_text, share, shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

__all__ = ["Line", "MOST_LINES", "accuracy_curve"]

MOST_LINES = 8
"""Lines that one picture holds; more would not be told apart."""

_WIDTH, _HEIGHT = 440.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 132.0, 14.0, 48.0
_COLOURS = 4
_LABEL = 14


@dataclass(frozen=True, slots=True)
class Line:
    """One check: its name and its points by ascending eps.

    `low` and `high` are empty where there are no intervals. A line that is not `reliable` is drawn as a ghost
    and says so in its label.
    """

    name: str
    eps: tuple[float, ...]
    accuracy: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    reliable: bool = True


def accuracy_curve(lines: Sequence[Line], *, norm: str, key: str) -> Markup:
    """The picture of up to `MOST_LINES` lines that share a norm; values are shares 0..1."""
    lines = lines[:MOST_LINES]
    widest = max((eps for line in lines for eps in line.eps), default=0.0) or 1.0
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def place(eps: float, accuracy: float) -> tuple[float, float]:
        return _LEFT + eps / widest * (right - _LEFT), bottom - min(max(accuracy, 0.0), 1.0) * (bottom - _TOP)

    parts: list[Markup] = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = place(0, tick)[1]
        parts.append(element("line", x1=_LEFT, x2=right, y1=y, y2=y, class_="grid" if tick else "axis"))
        parts.append(element("text", f"{tick:.0%}", x=_LEFT - 8, y=y + 4, text_anchor="end", class_="tick"))
    for eps in _ticks(sorted({eps for line in lines for eps in line.eps}), widest, right - _LEFT):
        x = place(eps, 0)[0]
        parts.append(element("line", x1=x, x2=x, y1=bottom, y2=bottom + 4, class_="axis"))
        parts.append(element("text", eps_text(eps), x=x, y=bottom + 18, text_anchor="middle", class_="tick"))
    parts.append(
        element(
            "text",
            f"radius of the change, {norm_text(norm)}",
            x=(_LEFT + right) / 2,
            y=_HEIGHT - 6,
            text_anchor="middle",
            class_="tick",
        )
    )
    for number, line in enumerate(lines):
        parts.extend(_band(line, number, place))
    ends = [place(line.eps[-1], line.accuracy[-1]) for line in lines]
    gap = 16 if all(line.reliable for line in lines) else 30
    heights = spread([y for _, y in ends], gap=gap, low=_TOP, high=bottom)
    for number, (line, end, height) in enumerate(zip(lines, ends, heights, strict=True)):
        colour = f"c{number % _COLOURS + 1}" if line.reliable else "ghost"
        look = f"{colour} d{number % _COLOURS + 1}" if line.reliable else colour
        points = [place(eps, accuracy) for eps, accuracy in zip(line.eps, line.accuracy, strict=True)]
        parts.append(element("path", d=path(points), class_=f"line {look}"))
        parts.extend(_marker(x, y, number, look) for x, y in points)
        parts.append(element("path", d=path([(end[0] + 6, end[1]), (right + 12, height)]), class_=f"leader {look}"))
        parts.append(element("text", shorten(line.name, _LABEL), x=right + 16, y=height + 4, class_=f"name {colour}"))
        if not line.reliable:
            parts.append(element("text", "unreliable", x=right + 16, y=height + 18, class_=f"name {colour}"))
    return picture(
        *parts,
        key=key,
        width=_WIDTH,
        height=_HEIGHT,
        title=f"Accuracy against the radius of the change, {norm_text(norm)}",
        description=" ".join(map(_told, lines)),
    )


def _told(line: Line) -> str:
    points = ", ".join(f"{share(a)} at {eps_text(e)}" for e, a in zip(line.eps, line.accuracy, strict=True))
    return f"{line.name}{'' if line.reliable else ' (unreliable)'}: {points}."


def _band(line: Line, number: int, place: _Place) -> list[Markup]:
    if not line.low or not line.high or not line.reliable:
        return []
    upper = [place(eps, value) for eps, value in zip(line.eps, line.high, strict=True)]
    lower = [place(eps, value) for eps, value in zip(line.eps, line.low, strict=True)]
    return [element("path", d=path([*upper, *reversed(lower)], closed=True), class_=f"band c{number % _COLOURS + 1}")]


def _marker(x: float, y: float, number: int, look: str) -> Markup:
    match number % 4:
        case 0:
            return element("circle", cx=x, cy=y, r=3.6, class_=f"marker {look}")
        case 1:
            return element("rect", x=x - 3.4, y=y - 3.4, width=6.8, height=6.8, class_=f"marker {look}")
        case 2:
            diamond = [(x, y - 4.8), (x + 4.8, y), (x, y + 4.8), (x - 4.8, y)]
        case _:
            diamond = [(x, y - 4.8), (x + 4.6, y + 3.6), (x - 4.6, y + 3.6)]
    return element("path", d=path(diamond, closed=True), class_=f"marker {look}")


def _ticks(values: list[float], widest: float, width: float) -> list[float]:
    """As many of the measured radii as fit beside each other, the largest always."""
    kept: list[float] = []
    for value in reversed(values):
        if not kept or (kept[-1] - value) / widest * width >= 52:
            kept.append(value)
    return kept


if TYPE_CHECKING:
    from typing import Protocol

    class _Place(Protocol):
        def __call__(self, eps: float, accuracy: float) -> tuple[float, float]: ...

"""Standalone SVG for the documentation: small grey images, changes in two colours, bars, curves with a log axis.

A picture brings its own card, so that it reads on any page; its colours are those of the report, light or dark as the
reader's system asks for. Pixels are drawn as rectangles: an image inside an SVG may be blocked where it is shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from vambrace.report.palette import DARK, LIGHT
from vambrace.report.plots.svg import element, path

SERIES = 4
"""Colours of curves and bars; no meaning rests on them alone."""

_GREYS = 16
_COOL, _NONE, _WARM = (33, 102, 172), (128, 128, 128), (230, 120, 30)
_STRENGTHS = 6
_DASHES = ("", "6 3", "2 3", "9 3 2 3")
_FONT = "font-family:system-ui,-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif"
_RULES = {
    ".card": "fill:{card};stroke:{line}",
    ".ink": "fill:{ink}",
    ".muted": "fill:{muted}",
    ".won": "fill:{fail};font-weight:600",
    ".grid": "stroke:{line}",
    ".axis": "stroke:{axis}",
    ".frame": "fill:none;stroke:{axis}",
    ".hit": "fill:none;stroke:{fail};stroke-width:2.5",
    **{f".l{n}": f"stroke:{{curve-{n + 1}}};stroke-width:2;fill:none" for n in range(SERIES)},
    **{f".f{n}": f"fill:{{curve-{n + 1}}}" for n in range(SERIES)},
}


@dataclass(frozen=True, slots=True)
class Curve:
    """A line through (x, y) points by ascending x.

    Attributes:
        name: for the legend.
        points: in values of the axes.
        place: which of the colours and dashes.
        dots: diamonds alone, where nothing lies between the points.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    place: int
    dots: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a plot lies, and what its ends stand for; `log` for a logarithmic x axis.

    Attributes:
        left: of the plot area, as `right`, `top` and `bottom` in picture units.
        x: values at the left and the right end.
        y: values at the bottom and the top.
    """

    left: float
    right: float
    top: float
    bottom: float
    x: tuple[float, float]
    y: tuple[float, float]
    log: bool = True

    def place(self, x: float, y: float) -> tuple[float, float]:
        """A point in picture units."""
        low, high, here = (math.log(each) if self.log else each for each in (*self.x, x))
        across = (here - low) / (high - low)
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.left + across * (self.right - self.left), self.bottom - up * (self.bottom - self.top)


def sheet(*children: Markup, width: float, height: float, title: str, description: str) -> str:
    """A whole file: the card, and on it the children. A screen reader says the title and the description."""
    dark = f"@media (prefers-color-scheme:dark){{{_rules(DARK)}}}"
    style = f"text{{{_FONT};font-size:13px}}.small{{font-size:11px}}.head{{font-weight:600}}{_rules(LIGHT)}{dark}"
    whole = element(
        "svg",
        element("title", title),
        element("desc", description),
        element("style", Markup(style)),
        element("rect", x=0.5, y=0.5, width=width - 1, height=height - 1, rx=6, class_="card"),
        *children,
        xmlns="http://www.w3.org/2000/svg",
        viewbox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        role="img",
    )
    return str(whole).replace("><", ">\n<") + "\n"


def words(x: float, y: float, text: str, *, class_: str = "ink", anchor: str = "start") -> Markup:
    """A line of text."""
    return element("text", text, x=x, y=y, class_=class_, text_anchor=anchor)


def image(pixels: Sequence[Sequence[float]], x: float, y: float, size: float, *, hit: bool = False) -> Markup:
    """Grey values in 0..1, in a frame; a `hit` has a strong one."""
    shades = [[round(min(max(value, 0.0), 1.0) * (_GREYS - 1)) for value in row] for row in pixels]
    greys = {level: "#" + f"{round(255 * level / (_GREYS - 1)):02x}" * 3 for level in range(_GREYS)}
    return _mosaic(shades, greys, x, y, size, "hit" if hit else "frame")


def change(pixels: Sequence[Sequence[float]], x: float, y: float, size: float, *, most: float) -> Markup:
    """Changes from -most to most: blue for darker, grey for none, orange for brighter."""
    shades = [[round(max(-1.0, min(1.0, value / most)) * _STRENGTHS) for value in row] for row in pixels]
    colours = {}
    for level in range(-_STRENGTHS, _STRENGTHS + 1):
        share, end = abs(level) / _STRENGTHS, _WARM if level > 0 else _COOL
        mixed = (round(a + share * (b - a)) for a, b in zip(_NONE, end, strict=True))
        colours[level] = "#" + "".join(f"{channel:02x}" for channel in mixed)
    return _mosaic(shades, colours, x, y, size, "frame")


def axes(frame: Frame, *, x: Sequence[float], y: Sequence[float], share: bool = False) -> Markup:
    """Grid lines and their numbers; `share` for y values in 0..1 that are written as percentages."""
    parts: list[Markup] = []
    for value in y:
        height = frame.place(frame.x[0], value)[1]
        kind = "axis" if value == frame.y[0] else "grid"
        parts.append(element("line", x1=frame.left, x2=frame.right, y1=height, y2=height, class_=kind))
        text = f"{value:.0%}" if share else f"{value:g}"
        parts.append(words(frame.left - 8, height + 4, text, class_="muted small", anchor="end"))
    for value in x:
        across = frame.place(value, frame.y[0])[0]
        parts.append(element("line", x1=across, x2=across, y1=frame.bottom, y2=frame.bottom + 4, class_="axis"))
        parts.append(words(across, frame.bottom + 17, f"{value:,.10g}", class_="muted small", anchor="middle"))
    return Markup("").join(parts)


def curves(frame: Frame, lines: Sequence[Curve]) -> Markup:
    """Each line with its own colour, dash and dots."""
    parts: list[Markup] = []
    for line in lines:
        spots = [frame.place(*point) for point in line.points]
        if line.dots:
            parts += [_diamond(*spot, line.place) for spot in spots]
            continue
        parts.append(element("path", d=path(spots), class_=f"l{line.place}", **_dash(line)))
        if len(spots) > 2:  # a flat line has nothing to point at
            parts += [element("circle", cx=across, cy=up, r=3, class_=f"f{line.place}") for across, up in spots]
    return Markup("").join(parts)


def legend(lines: Sequence[Curve], x: float, y: float) -> Markup:
    """Names under each other, each beside a piece of its line."""
    parts: list[Markup] = []
    for row, line in enumerate(lines):
        up = y + 18 * row
        if line.dots:
            parts.append(_diamond(x + 12, up, line.place))
        else:
            parts.append(element("line", x1=x, x2=x + 24, y1=up, y2=up, class_=f"l{line.place}", **_dash(line)))
        parts.append(words(x + 32, up + 4, line.name))
    return Markup("").join(parts)


def bars(
    rows: Sequence[tuple[str, tuple[float, ...]]], *, left: float, right: float, top: float, thick: float = 11.0
) -> Markup:
    """Horizontal bars of shares in 0..1, several under each name, each with its number."""
    parts: list[Markup] = []
    step = thick * len(rows[0][1]) + 9
    for row, (name, shares) in enumerate(rows):
        begin = top + row * step
        parts.append(words(left - 10, begin + thick * len(shares) / 2 + 4, name, anchor="end"))
        for number, share in enumerate(shares):
            height = begin + number * thick
            size = {"width": max(share * (right - left), 0.5), "height": thick - 1.5}
            parts.append(element("rect", x=left, y=height, **size, class_=f"f{number}"))
            text = words(left + size["width"] + 6, height + thick - 2, f"{share:.0%}", class_="muted small")
            parts.append(text)
    return Markup("").join(parts)


def _dash(line: Curve) -> dict[str, str]:
    dashes = _DASHES[line.place]
    return {"stroke_dasharray": dashes} if dashes else {}


def _diamond(x: float, y: float, number: int) -> Markup:
    corners = [(x, y - 6), (x + 6, y), (x, y + 6), (x - 6, y)]
    return element("path", d=path(corners, closed=True), class_=f"f{number}")


def _mosaic(
    shades: Sequence[Sequence[int]], colours: dict[int, str], x: float, y: float, size: float, frame: str
) -> Markup:
    """Runs of equal pixels as one path a colour."""
    runs: dict[int, str] = {}
    for row, values in enumerate(shades):
        begin = 0
        for end in range(1, len(values) + 1):
            if end == len(values) or values[end] != values[begin]:
                width = end - begin
                runs[values[begin]] = runs.get(values[begin], "") + f"M{begin} {row}h{width}v1h-{width}z"
                begin = end
    cells = [element("path", d=runs[level], fill=colours[level]) for level in sorted(runs)]
    scale = f"translate({x:g} {y:g}) scale({size / len(shades):g})"
    return Markup("").join(
        (
            element("g", *cells, transform=scale, shape_rendering="crispEdges"),
            element("rect", x=x - 1, y=y - 1, width=size + 2, height=size + 2, class_=frame),
        )
    )


def _rules(theme: dict[str, str]) -> str:
    return "".join(f"{name}{{{rule.format_map(theme)}}}" for name, rule in _RULES.items())

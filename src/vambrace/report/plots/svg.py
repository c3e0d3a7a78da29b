"""SVG as text that is safe by construction: every attribute and every text child is escaped.

    >>> element("text", "a < b", x=1, class_="label")
    Markup('<text x="1" class="label">a &lt; b</text>')

Colours and fonts come from CSS classes; `style` attributes are refused, because the report's content
security policy would drop them in silence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["element", "path", "picture", "spread"]

_RENAMED = {"class_": "class", "viewbox": "viewBox", "stroke_width": "stroke-width", "text_anchor": "text-anchor"}


def element(tag: str, /, *children: str, **attributes: str | float) -> Markup:
    """One element; children that are not `Markup` are text."""
    if "style" in attributes:
        raise ValueError("use a class: the content security policy drops style attributes")
    pairs = Markup("").join(
        Markup(' {}="{}"').format(_RENAMED.get(name, name.replace("_", "-")), _value(value))
        for name, value in attributes.items()
    )
    if not children:
        return Markup("<{}{}/>").format(tag, pairs)
    return Markup("<{}{}>{}</{}>").format(tag, pairs, Markup("").join(children), tag)


def picture(
    *children: str, key: str, width: float, height: float, title: str, description: str, class_: str = "plot"
) -> Markup:
    """A whole picture that a screen reader announces by its title and describes; `key` is unique in the page."""
    return element(
        "svg",
        element("title", title, id=f"{key}-title"),
        element("desc", description, id=f"{key}-desc"),
        *children,
        viewbox=f"0 0 {_value(width)} {_value(height)}",
        role="img",
        aria_labelledby=f"{key}-title {key}-desc",
        class_=class_,
    )


def path(points: Iterable[tuple[float, float]], *, closed: bool = False) -> str:
    """The `d` of a polyline."""
    return "M" + "L".join(f"{_value(x)},{_value(y)}" for x, y in points) + ("Z" if closed else "")


def spread(places: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Where labels go that would like to be at `places`: at least `gap` apart, in order, within low..high if they fit.

    >>> spread([10, 11, 50], gap=5, low=0, high=100)
    [10.0, 15.0, 50.0]
    """
    order = sorted(range(len(places)), key=lambda index: places[index])
    put = [0.0] * len(places)
    last = low - gap
    for index in order:
        put[index] = last = max(float(places[index]), last + gap)
    limit = high
    for index in reversed(order):
        put[index] = min(put[index], limit)
        limit = put[index] - gap
    return put


def _value(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")

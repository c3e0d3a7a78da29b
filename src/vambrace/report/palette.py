"""Every colour of the report, for light and dark, in one place, so that a test can compute each contrast.

Colours are roles, not hues. `PAIRS` lists which foreground stands on which background and the WCAG 2.1
contrast it must reach: 4.5 for text, 3 for lines and marks that carry meaning. No meaning rests on colour
alone: each status also has a word and a shape, each curve a dash, a marker and a label, each cell a number.
"""

from __future__ import annotations

__all__ = ["DARK", "HEAT_STEPS", "LIGHT", "PAIRS", "contrast", "variables"]

HEAT_STEPS = 10
"""The heat map has steps 0 (all correct) to 10 (none correct)."""

LIGHT = {
    "page": "#f6f6f3",
    "card": "#ffffff",
    "sunk": "#f0f0ec",
    "ink": "#1b1d21",
    "muted": "#5b6067",
    "line": "#dcdcd6",
    "axis": "#868b92",
    "accent": "#1f4e8c",
    "pass": "#1c6b45",
    "fail": "#ad2a1d",
    "warn": "#8a5600",
    "unreliable": "#7b2f8c",
    "quiet": "#5b6067",
    "loud": "#f7ecfa",
    "curve-1": "#1f4e8c",
    "curve-2": "#a8470a",
    "curve-3": "#1b7563",
    "curve-4": "#8a3277",
    "heat-ink": "#1b1d21",
    "heat-ink-strong": "#ffffff",
    "heat-0": "#fdf8f0",
    "heat-1": "#fae9d3",
    "heat-2": "#f6d8b4",
    "heat-3": "#f0c493",
    "heat-4": "#e6ad72",
    "heat-5": "#d99453",
    "heat-6": "#b5601f",
    "heat-7": "#9a4b14",
    "heat-8": "#7f390f",
    "heat-9": "#64290b",
    "heat-10": "#4a1b07",
}
"""Light theme: role to colour."""

DARK = {
    "page": "#131519",
    "card": "#1b1e23",
    "sunk": "#24272d",
    "ink": "#e9eaec",
    "muted": "#a6acb5",
    "line": "#343941",
    "axis": "#7d848e",
    "accent": "#8fb8ef",
    "pass": "#70cf9d",
    "fail": "#ff9486",
    "warn": "#ecb45a",
    "unreliable": "#dda0ee",
    "quiet": "#a6acb5",
    "loud": "#33213a",
    "curve-1": "#8fb8ef",
    "curve-2": "#f0a16b",
    "curve-3": "#67c9b1",
    "curve-4": "#dc9bcb",
    "heat-ink": "#f3ece6",
    "heat-ink-strong": "#1b1d21",
    "heat-0": "#1f2126",
    "heat-1": "#2b2624",
    "heat-2": "#392b22",
    "heat-3": "#4a3221",
    "heat-4": "#5e3b20",
    "heat-5": "#7a4a20",
    "heat-6": "#c27a3d",
    "heat-7": "#d6934f",
    "heat-8": "#e4ab6c",
    "heat-9": "#efc48f",
    "heat-10": "#f9dfba",
}
"""Dark theme: role to colour; stronger is still "fewer correct"."""

_TEXT = 4.5
_MARK = 3.0
PAIRS: tuple[tuple[str, str, float], ...] = (
    *((ink, ground, _TEXT) for ink in ("ink", "muted", "accent") for ground in ("page", "card", "sunk")),
    *(
        (status, ground, _TEXT)
        for status in ("pass", "fail", "warn", "unreliable", "quiet")
        for ground in ("page", "card", "sunk")
    ),
    *((ink, "loud", _TEXT) for ink in ("ink", "unreliable", "muted")),
    *((f"curve-{number}", "card", _TEXT) for number in (1, 2, 3, 4)),
    ("axis", "card", _MARK),
    *(("heat-ink", f"heat-{step}", _TEXT) for step in range(6)),
    *(("heat-ink-strong", f"heat-{step}", _TEXT) for step in range(6, HEAT_STEPS + 1)),
)
"""(foreground, background, least contrast)."""


def contrast(one: str, other: str) -> float:
    """WCAG 2.1 contrast of two `#rrggbb` colours, 1 to 21.

    >>> contrast("#ffffff", "#000000")
    21.0
    """
    bright, dim = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def variables(theme: dict[str, str]) -> str:
    """The theme as CSS custom properties."""
    return "".join(f"--{role}:{colour};" for role, colour in theme.items())


def _luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.1."""
    channels = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue

r"""Make any text safe to show, and numbers easy to read.

Names of classes, files, checks and plug-ins come from strangers. `visible` removes what could steer a
terminal, reorder a line or hide in it; escaping for HTML or XML comes on top, where the text is placed.

    >>> visible("cat\x1b[31m\u202egnp")
    'cat\ufffd[31m\ufffdgnp'
    >>> share(0.9312, n=1000), eps_text(8 / 255), thousands(41200)
    ('93.1 %', '8/255', '41.2k')
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vambrace.core.findings import Finding, Interval

__all__ = [
    "eps_text",
    "interval_text",
    "norm_text",
    "number",
    "on_a_line",
    "seconds_text",
    "share",
    "shorten",
    "thousands",
    "value_text",
    "visible",
]

_MARK = "\ufffd"
_KEPT = "\n\t\u200c\u200d"  # the two joiners are part of how Persian, Hindi and emoji are written
_NORMS = {"linf": "L\u221e", "l2": "L2", "l1": "L1", "l0": "L0"}  # noqa: RUF001
_FLAGS = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def visible(text: str, limit: int = 2000) -> str:
    """`text` with control, formatting, surrogate and unassigned characters marked, cut at `limit` characters."""
    cut = text[:limit]
    if not (cut.isascii() and cut.isprintable()):
        cut = "".join(char if char in _KEPT or unicodedata.category(char) not in _FLAGS else _MARK for char in cut)
    return cut if len(text) <= limit else f"{cut}\u2026"


def on_a_line(text: str, limit: int = 2000) -> str:
    """`visible`, for a text that must not begin lines of its own."""
    return visible(text, limit).translate({ord("\n"): _MARK, ord("\t"): " "})


def shorten(text: str, width: int) -> str:
    """`text` on one line of at most `width` characters; its middle goes first, because both ends tell a name apart."""
    line = " ".join(text.split())
    if len(line) <= width:
        return line
    if width < 3:
        return line[:width]
    head = (width - 1 + 1) // 2
    return f"{line[:head]}\u2026{line[len(line) - (width - 1 - head) :]}"


def share(value: float, n: int = 0) -> str:
    """A share 0..1 as per cent, with one digit, or two where at least 10,000 samples carry it.

    More digits where fewer would say "all" or "none" of what is neither.
    """
    digits = 2 if n >= 10_000 else 1
    while digits < 6 and 0 < value < 1 and float(f"{value * 100:.{digits}f}") in {0.0, 100.0}:
        digits += 1
    return f"{value * 100:.{digits}f} %"


def number(value: float) -> str:
    """A number in at most four significant digits."""
    return f"{value:.4g}"


def thousands(count: float) -> str:
    """A count in at most three significant digits: 950, 41.2k, 3.4M, 12G."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size * 0.9995:
            scaled = count / size
            return f"{scaled:.{0 if scaled >= 99.95 else 1}f}".removesuffix(".0") + suffix
    return f"{count:.0f}"


def seconds_text(seconds: float) -> str:
    """A duration: 0.4 s, 12 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def eps_text(eps: float) -> str:
    """A radius: short decimals as they are, else k/255 where it is exactly that float and k a whole number."""
    steps = round(eps * 255)
    if float(f"{eps:.3g}") != eps and 0 < steps < 255 and eps == steps / 255:
        return f"{steps}/255"
    return f"{eps:.4g}"


def norm_text(norm: str) -> str:
    """The field's spelling of a norm."""
    return _NORMS.get(norm, norm)


def value_text(value: float, unit: str, n: int = 0) -> str:
    """A value with its unit."""
    match unit:
        case "share":
            return share(value, n)
        case "points":
            return f"{value:.1f} points"
        case "auc":
            return f"{value:.3f}"
        case "count":
            return f"{value:,.0f}"
        case "distance":
            return number(value)
        case _:
            return f"{number(value)} {shorten(unit, 24)}"


def interval_text(finding: Finding, interval: Interval | None = None) -> str:
    """The 95 % interval in the unit of the value, without the unit: `[91.7, 94.8]`; "" where there is none."""
    interval = interval or finding.interval
    if interval is None:
        return ""
    low, high = interval.low, interval.high
    if finding.unit == "share":
        digits = 2 if finding.n >= 10_000 else 1
        return f"[{low * 100:.{digits}f}, {high * 100:.{digits}f}]"
    if finding.unit == "points":
        return f"[{low:.1f}, {high:.1f}]"
    if finding.unit == "auc":
        return f"[{low:.3f}, {high:.3f}]"
    return f"[{number(low)}, {number(high)}]"

"""The ROC of a membership attack on logarithmic axes, where the few records that leak can be seen.

An ROC of samples is a staircase: between two false alarms nothing is known, so the line waits and then steps. Below the
rate at which enough non-members stand behind a point it is drawn dotted, because there it is luck.

Carlini et al., "Membership Inference Attacks From First Principles", arXiv:2112.03570, section 4: an
attack is judged by the members it names at very few false alarms, which a linear ROC hides in its corner.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vambrace.report.plots.svg import element, path, picture
from vambrace.report.text import share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

__all__ = ["Mark", "log_roc"]

_WIDTH, _HEIGHT = 440.0, 384.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 76.0, 32.0, 38.0, 86.0
_DEEPEST = 5  # decades


@dataclass(frozen=True, slots=True)
class Mark:
    """A measured point: members found at `fpr` false alarms, both shares, with the ends of its interval, if any."""

    fpr: float
    found: float
    low: float | None = None
    high: float | None = None


def log_roc(
    fpr: Sequence[float], tpr: Sequence[float], *, key: str, marks: Sequence[Mark] = (), measured_from: float = 0.0
) -> Markup:
    """The picture of points with ascending `fpr`; zeros are drawn at the edge of the picture.

    Args:
        fpr: false alarms, shares.
        tpr: members found, shares.
        key: unique in the page.
        marks: measured points that are named.
        measured_from: the rate of false alarms below which too few non-members stand behind the line.
    """
    smallest = min((rate for rate in fpr if rate > 0), default=0.1)
    decades = min(max(math.ceil(-math.log10(smallest) - 1e-9), 1), _DEEPEST)
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x(rate: float) -> float:
        return right + _log(rate, decades) / decades * (right - _LEFT)

    def y(rate: float) -> float:
        return _TOP - _log(rate, decades) / decades * (bottom - _TOP)

    parts: list[Markup] = []
    for power in range(decades + 1):
        rate = 10.0**-power
        label = f"{rate * 100:g} %"
        parts.append(element("line", x1=_LEFT, x2=right, y1=y(rate), y2=y(rate), class_="grid"))
        parts.append(element("text", label, x=_LEFT - 8, y=y(rate) + 4, text_anchor="end", class_="tick"))
        parts.append(element("line", x1=x(rate), x2=x(rate), y1=_TOP, y2=bottom, class_="grid"))
        parts.append(element("text", label, x=x(rate), y=bottom + 18, text_anchor="middle", class_="tick"))
    parts.append(element("path", d=path([(_LEFT, bottom), (right, _TOP)]), class_="chance"))
    unsure, sure = _stairs(fpr, tpr, measured_from)
    if len(unsure) > 1:
        parts.append(element("path", d=path([(x(f), y(t)) for f, t in unsure]), class_="line ghost"))
    if len(sure) > 1:
        parts.append(element("path", d=path([(x(f), y(t)) for f, t in sure]), class_="line c1"))
    told: list[str] = []
    for mark in marks:
        at, ends = x(mark.fpr), ""
        parts.append(element("line", x1=at, x2=at, y1=_TOP - 8, y2=bottom, class_="guide"))
        if mark.low is not None and mark.high is not None:
            ends = f" ({share(mark.low)} to {share(mark.high)})"
            parts.append(element("path", d=path([(at, y(mark.low)), (at, y(mark.high))]), class_="line c1"))
            caps = ([(at - 5, y(end)), (at + 5, y(end))] for end in (mark.low, mark.high))
            parts.extend(element("path", d=path(cap), class_="line c1") for cap in caps)
        parts.append(element("circle", cx=at, cy=y(mark.found), r=4.5, class_="marker c1"))
        parts.append(element("text", share(mark.found), x=at, y=_TOP - 14, text_anchor="middle", class_="name c1"))
        told.append(f"{share(mark.found)}{ends} of the members at {mark.fpr * 100:g} % false alarms")
    # Below the axis: within the picture a bar or a line would run through the words.
    words = ["false alarms", "dashed: guessing"]
    if len(unsure) > 1:
        words.append(f"dotted: below {measured_from * 100:.3g} %, too few non-members")
    for row, text in enumerate(words):
        middle, y_row = (_LEFT + right) / 2, bottom + 40 + 19 * row
        parts.append(element("text", text, x=middle, y=y_row, text_anchor="middle", class_="tick"))
    parts.append(
        element(
            "text",
            "members found",
            x=14,
            y=(_TOP + bottom) / 2,
            text_anchor="middle",
            class_="tick",
            transform=f"rotate(-90 14 {(_TOP + bottom) / 2:.0f})",
        )
    )
    return picture(
        *parts,
        key=key,
        width=_WIDTH,
        height=_HEIGHT,
        title="Members found against false alarms, both axes logarithmic",
        description=f"The attack finds {'; '.join(told)}. Guessing finds as many members as it gives false alarms."
        if told
        else "No point is marked: the members found at 10, 1 and 0.1 % false alarms were not measured.",
    )


def _stairs(
    fpr: Sequence[float], tpr: Sequence[float], measured_from: float
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """The corners of the staircase below `measured_from` and from there on; the two meet."""
    corners: list[tuple[float, float]] = []
    for rate, found in zip(fpr, tpr, strict=True):
        if corners:
            corners.append((rate, corners[-1][1]))
        corners.append((rate, found))
    below = [corner for corner in corners if corner[0] < measured_from]
    above = corners[len(below) :]
    if below and above:
        joint = (measured_from, below[-1][1])
        return [*below, joint], [joint, *above]
    return below, above


def _log(rate: float, decades: int) -> float:
    return max(math.log10(rate), -decades) if rate > 0 else -decades

"""The ROC of a membership attack on logarithmic axes, where the few records that leak can be seen.

Carlini et al., "Membership Inference Attacks From First Principles", arXiv:2112.03570, section 4: an
attack is judged by the members it names at very few false alarms, which a linear ROC hides in its corner.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from vambrace.report.plots.svg import element, path, picture
from vambrace.report.text import share

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup

__all__ = ["log_roc"]

_WIDTH, _HEIGHT = 440.0, 350.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 76.0, 32.0, 38.0, 52.0
_DEEPEST = 5  # decades


def log_roc(
    fpr: Sequence[float], tpr: Sequence[float], *, key: str, marks: Mapping[float, float] | None = None
) -> Markup:
    """The picture of points with ascending `fpr`; zeros are drawn at the edge of the picture.

    `marks` are measured points that are named: false alarms to members found, both shares.
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
    parts.append(element("text", "dashed: guessing", x=right - 8, y=bottom - 10, text_anchor="end", class_="tick"))
    parts.append(element("path", d=path([(x(f), y(t)) for f, t in zip(fpr, tpr, strict=True)]), class_="line c1"))
    told: list[str] = []
    for rate, found in (marks or {}).items():
        told.append(f"{share(found)} of the members at {rate * 100:g} % false alarms")
        parts.append(element("line", x1=x(rate), x2=x(rate), y1=_TOP - 8, y2=bottom, class_="guide"))
        parts.append(element("circle", cx=x(rate), cy=y(found), r=4.5, class_="marker c1"))
        parts.append(element("text", share(found), x=x(rate), y=_TOP - 14, text_anchor="middle", class_="name c1"))
    middle = (_LEFT + right) / 2
    parts.append(element("text", "false alarms", x=middle, y=_HEIGHT - 8, text_anchor="middle", class_="tick"))
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


def _log(rate: float, decades: int) -> float:
    return max(math.log10(rate), -decades) if rate > 0 else -decades

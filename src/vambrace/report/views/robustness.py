"""Curves of accuracy against radius, and the heat map of perturbation by severity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vambrace.core.findings import Status
from vambrace.report.palette import HEAT_STEPS
from vambrace.report.plots.curve import MOST_LINES, Line, accuracy_curve
from vambrace.report.selection import MISSING
from vambrace.report.text import interval_text, norm_text
from vambrace.report.views.series import numbers, same_length
from vambrace.report.words import number_parameter, text_parameter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

    from vambrace.core.findings import Finding

__all__ = ["Cell", "Curve", "HeatMap", "HeatRow", "curves", "heat_map"]

_MOST_ROWS = 60


@dataclass(frozen=True, slots=True)
class Curve:
    """The picture of one norm; `left_out` lines found no place in it."""

    norm: str
    picture: Markup
    lines: int
    left_out: int
    unreliable: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """One field of the heat map: its text, its step of colour (None: no number) and what a pointer shows."""

    text: str
    step: int | None
    kind: Literal["sound", "unreliable", "missing"]
    note: str


@dataclass(frozen=True, slots=True)
class HeatRow:
    """One perturbation."""

    name: str
    check: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Accuracy by perturbation and severity."""

    severities: tuple[int, ...]
    rows: tuple[HeatRow, ...]
    worst: str
    """One sentence about the weakest field; "" where there is no number."""
    left_out: int


def curves(findings: Sequence[Finding]) -> list[Curve]:
    """One picture a norm, from the series of the adversarial findings."""
    lines: dict[str, list[Line]] = {}
    for finding in findings:
        line = _line(finding)
        if finding.family == "adversarial" and line:
            lines.setdefault(text_parameter(finding, "norm") or "", []).append(line)
    return [
        Curve(
            norm=norm_text(norm),
            picture=accuracy_curve(found, norm=norm, key=f"curve-{place}"),
            lines=min(len(found), MOST_LINES),
            left_out=max(0, len(found) - MOST_LINES),
            unreliable=tuple(line.name for line in found[:MOST_LINES] if not line.reliable),
        )
        for place, (norm, found) in enumerate(list(lines.items())[:4])
    ]


def heat_map(findings: Sequence[Finding]) -> HeatMap | None:
    """The heat map of the natural findings; None where there is nothing to draw."""
    cells: dict[tuple[str, str], dict[int, Finding]] = {}
    for finding in findings:
        severity = number_parameter(finding, "severity")
        if finding.family == "natural" and finding.metric.startswith("accuracy@") and severity is not None:
            name = text_parameter(finding, "perturbation") or finding.check
            cells.setdefault((finding.check, name), {})[round(severity)] = finding
    severities = tuple(sorted({severity for row in cells.values() for severity in row}))[:10]
    if not severities:
        return None
    twice = {name for _, name in cells if sum(other == name for _, other in cells) > 1}
    rows = tuple(
        HeatRow(name, check if name in twice else "", tuple(_cell(row.get(severity)) for severity in severities))
        for (check, name), row in list(cells.items())[:_MOST_ROWS]
    )
    sound = [
        (finding.value, name, severity)
        for (_, name), row in cells.items()
        for severity, finding in row.items()
        if finding.value is not None and finding.status not in MISSING
    ]
    worst = ""
    if sound:
        value, name, severity = min(sound)
        worst = f"The weakest field is {name} at severity {severity}: {value * 100:.1f} % right."
    return HeatMap(severities, rows, worst, max(0, len(cells) - _MOST_ROWS))


def _line(finding: Finding) -> Line | None:
    eps, accuracy = numbers(finding.series, "eps"), numbers(finding.series, "accuracy")
    if eps is None or accuracy is None or not same_length(eps, accuracy):
        return None
    if any(later <= earlier for earlier, later in zip(eps, eps[1:], strict=False)) or eps[0] < 0:
        return None
    low, high = numbers(finding.series, "low"), numbers(finding.series, "high")
    if low is None or high is None or not same_length(eps, low, high):
        low = high = ()
    return Line(finding.check, eps, accuracy, low, high, reliable=finding.status not in MISSING)


def _cell(finding: Finding | None) -> Cell:
    if finding is None:
        return Cell("\u2013", None, "missing", "not planned")
    if finding.value is None:
        return Cell("\u2013", None, "missing", finding.reason or "not measured")
    step = round((1 - min(max(finding.value, 0.0), 1.0)) * HEAT_STEPS)
    text = f"{finding.value * 100:.1f}"
    if finding.status in MISSING:
        return Cell(text, None, "unreliable", finding.reason or Status.UNRELIABLE.value)
    return Cell(text, step, "sound", f"{text} % {interval_text(finding)}, n = {finding.n:,}")

"""The ROC pictures of membership checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vambrace.report.plots.roc import Mark, log_roc
from vambrace.report.selection import MISSING
from vambrace.report.views.series import numbers, same_length
from vambrace.report.words import number_parameter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

    from vambrace.core.findings import Finding

__all__ = ["Roc", "rocs"]

_MOST = 4
_MOST_POINTS = 400
_NEEDED = 10.0  # false alarms behind a point, before it means anything; docs/membership.md


@dataclass(frozen=True, slots=True)
class Roc:
    """The picture of one check."""

    check: str
    picture: Markup
    sentence: str


def rocs(findings: Sequence[Finding]) -> list[Roc]:
    """The ROC of every membership finding that has one."""
    found: list[Roc] = []
    for finding in findings:
        fpr, tpr = numbers(finding.series, "fpr"), numbers(finding.series, "tpr")
        if finding.family == "membership" and fpr and tpr and _is_roc(fpr, tpr):
            others = number_parameter(finding, "nonmembers")
            picture = log_roc(
                fpr,
                tpr,
                key=f"roc-{len(found)}",
                marks=_marks(findings, finding.check),
                measured_from=_NEEDED / others if others and others > _NEEDED else 0.0,
            )
            found.append(Roc(finding.check, picture, finding.sentence))
    return found[:_MOST]


def _marks(findings: Sequence[Finding], check: str) -> list[Mark]:
    """The measured shares of members found, by false alarms: the numbers of the table, not read off the line."""
    marks: list[Mark] = []
    for finding in findings:
        rate = number_parameter(finding, "fpr")
        wanted = finding.check == check and finding.metric.startswith("tpr@") and finding.status not in MISSING
        if wanted and finding.value is not None and rate is not None and 0 < rate <= 1:
            ends = finding.interval
            marks.append(Mark(rate, finding.value, *((ends.low, ends.high) if ends else ())))
    return marks


def _is_roc(fpr: tuple[float, ...], tpr: tuple[float, ...]) -> bool:
    if not same_length(fpr, tpr) or not 2 <= len(fpr) <= _MOST_POINTS:
        return False
    return list(fpr) == sorted(fpr) and all(0 <= rate <= 1 for rate in (*fpr, *tpr))

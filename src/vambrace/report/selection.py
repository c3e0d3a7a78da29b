"""Which numbers a hurried reader sees first; the rest stays in the family's section and in results.json."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vambrace.core.findings import Status
from vambrace.report.words import family_order

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vambrace.core.findings import Finding

__all__ = ["MISSING", "URGENT", "by_family", "headlines", "key_numbers", "reasons"]

URGENT = frozenset({Status.FAIL, Status.UNRELIABLE, Status.ERROR, Status.WARN})
"""Statuses that are never folded away."""

MISSING = frozenset({Status.NOT_MEASURED, Status.UNRELIABLE, Status.ERROR})
"""Statuses whose number, if there is one, must not be believed."""

_JUDGED = {Status.FAIL: 0, Status.PASS: 1}  # what a gate asked about matters more than what was only measured
_DETAILS = {
    ("clean", "loss"),
    ("adversarial", "success"),
    ("natural", "accuracy"),
    ("natural", "drop"),
}


def by_family(findings: Iterable[Finding]) -> list[tuple[str, list[Finding]]]:
    """Findings by family in the report's order, each in the order of the run."""
    every = list(findings)
    return [(family, [item for item in every if item.family == family]) for family in family_order(every)]


def headlines(findings: Sequence[Finding]) -> list[Finding]:
    """The findings that say it all: everything urgent, and of each check what is not a detail.

    A check with nothing but details keeps them.
    """
    summed = {finding.check for finding in findings if not _is_detail(finding)}
    return [
        finding
        for finding in findings
        if finding.status in URGENT or not _is_detail(finding) or finding.check not in summed
    ]


def key_numbers(findings: Sequence[Finding]) -> list[Finding]:
    """One finding a family, at most four: the one that says most, and of its kind the worst that can be believed."""
    chosen = [_key(family, found) for family, found in by_family(findings) if family != "preflight"]
    return [finding for finding in chosen if finding is not None][:4]


def reasons(findings: Iterable[Finding]) -> list[tuple[str, list[Finding]]]:
    """Why numbers are missing: each reason of a check once, with the findings that it concerns."""
    grouped: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        if finding.reason:
            grouped.setdefault((finding.check, finding.reason), []).append(finding)
    return [(reason, found) for (_, reason), found in grouped.items()]


def _is_detail(finding: Finding) -> bool:
    return (finding.family, finding.metric.partition("@")[0]) in _DETAILS


def _key(family: str, findings: Sequence[Finding]) -> Finding | None:
    wanted = {
        "clean": "accuracy",
        "adversarial": "robust_accuracy",
        "natural": "mean_accuracy",
        "membership": "auc",
        "dp": "epsilon",
    }
    named = [finding for finding in findings if finding.metric.partition("@")[0] == wanted.get(family)]
    named = named or list(findings)
    sound = [finding for finding in named if finding.value is not None and finding.status not in MISSING]
    if not sound:
        return named[0] if named else None

    def goodness(finding: Finding) -> tuple[int, float]:
        value = finding.value or 0.0
        return _JUDGED.get(finding.status, 2), value if finding.higher_is_better else -value

    return min(sound, key=goodness)

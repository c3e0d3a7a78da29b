"""The scorecard: one row a number, with its interval, the gates that judged it, its status and its cost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vambrace.core.findings import Status
from vambrace.report.plots.interval import interval_bar
from vambrace.report.selection import MISSING, by_family, headlines, key_numbers
from vambrace.report.text import interval_text, seconds_text, thousands
from vambrace.report.words import FAMILIES, STATUSES, Look, family_title, metric_label, shown_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from markupsafe import Markup

    from vambrace.core.findings import Finding, GateResult, Results

__all__ = ["GateRow", "Group", "Row", "cost_text", "gate_rows", "groups", "row", "rows", "tiles"]

_GATE_ORDER: dict[Look, int] = {"fail": 0, "missing": 1, "warn": 2, "pass": 3}
_ON_A_BAR = frozenset({"share", "auc"})


@dataclass(frozen=True, slots=True)
class GateRow:
    """One gate as it is shown."""

    look: Look
    word: str
    gate: str
    rule: str
    finding: str
    sentence: str
    required: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One finding as it is shown; `struck` numbers must not be believed."""

    label: str
    name: str
    check: str
    family: str
    value: str
    struck: bool
    interval: str
    bar: Markup | None
    n: str
    look: Look
    word: str
    sentence: str
    reason: str
    gates: tuple[GateRow, ...]
    cost: str
    seconds: str


@dataclass(frozen=True, slots=True)
class Group:
    """One family: its headline rows, and how many numbers its own section adds."""

    family: str
    title: str
    question: str
    rows: tuple[Row, ...]
    more: int


def groups(results: Results, seconds: Mapping[str, float], most: int) -> list[Group]:
    """Every family with at most `most` headline rows."""
    made: list[Group] = []
    for family, findings in by_family(results.findings):
        kept = headlines(findings)[:most]
        question = FAMILIES[family][1] if family in FAMILIES else ""
        shown = rows(kept, results.gates, seconds)
        made.append(Group(family, family_title(family), question, shown, len(findings) - len(kept)))
    return made


def tiles(results: Results) -> list[Row]:
    """The key number of each family, for the head of the page."""
    return [row(finding, results.gates, {}) for finding in key_numbers(results.findings)]


def rows(findings: Sequence[Finding], gates: Sequence[GateResult], seconds: Mapping[str, float]) -> tuple[Row, ...]:
    """Findings as they are shown below each other."""
    return _once(row(finding, gates, seconds) for finding in findings)


def row(finding: Finding, gates: Sequence[GateResult], seconds: Mapping[str, float]) -> Row:
    """One finding as it is shown."""
    look, word = STATUSES[finding.status]
    missing = finding.status in MISSING
    # Where the sentence gives the reason already, it is said once, and loudly.
    once = bool(finding.reason) and finding.reason in finding.sentence
    judged = [gate for gate in gates if gate.finding == finding.name]
    took = seconds.get(finding.check)
    return Row(
        label=metric_label(finding),
        name=finding.name,
        check=finding.check,
        family=family_title(finding.family),
        value=shown_value(finding),
        struck=missing and finding.value is not None and finding.family != "preflight",
        interval=interval_text(finding),
        bar=_bar(finding, judged),
        n=f"{finding.n:,}",
        look=look,
        word=word,
        sentence="" if once else finding.sentence,
        reason=finding.sentence if once else finding.reason,
        gates=tuple(gate_rows(judged)),
        cost=cost_text(finding),
        seconds=seconds_text(took) if took is not None else "",
    )


def gate_rows(gates: Sequence[GateResult]) -> list[GateRow]:
    """Gates as they are shown, those that do not hold first."""
    made: list[GateRow] = []
    for gate in gates:
        look, word = _gate_status(gate)
        rule = gate.gate.partition(" ")[2] or gate.gate  # the row that it stands in names the number already
        made.append(GateRow(look, word, gate.gate, rule, gate.finding, gate.sentence, gate.required))
    return sorted(made, key=lambda row: _GATE_ORDER.get(row.look, 0))


def cost_text(finding: Finding) -> str:
    """Passes of one sample through the model, forward or backward, and queries where they are counted."""
    cost = finding.cost
    passes = cost.forwards + cost.backwards + cost.verifications
    text = f"{thousands(passes)} passes" if passes else ""
    return f"{thousands(cost.queries)} queries" if cost.queries and not cost.backwards else text


def _once(rows: Iterable[Row]) -> tuple[Row, ...]:
    """The cost of a check stands on its first row: it is not spent again for each number."""
    seen: set[str] = set()
    made: list[Row] = []
    for one in rows:
        made.append(replace(one, cost="", seconds="") if one.check in seen else one)
        seen.add(one.check)
    return tuple(made)


def _gate_status(gate: GateResult) -> tuple[Look, str]:
    # A failing optional gate decides nothing: it is a warning, in its look as well.
    look, word = STATUSES[gate.status]
    return ("warn" if gate.status is Status.FAIL and not gate.required else look), word


def _bar(finding: Finding, gates: Sequence[GateResult]) -> Markup | None:
    if finding.value is None or finding.unit not in _ON_A_BAR or finding.family == "preflight":
        return None
    interval = finding.interval
    ends = {finding.value} | ({interval.low, interval.high} if interval else set[float]())
    # A gate on a change from a baseline compares another quantity: its threshold has no place on this axis.
    threshold = next((gate.threshold for gate in gates if gate.observed in ends), None)
    return interval_bar(
        finding.value,
        interval.low if interval else None,
        interval.high if interval else None,
        threshold=threshold,
        reliable=finding.status not in MISSING,
    )

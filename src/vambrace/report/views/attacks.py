"""What each attack of an ensemble did: one small table a finding whose series says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from vambrace.report.text import eps_text, norm_text
from vambrace.report.words import number_parameter, text_parameter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vambrace.core.findings import Finding

__all__ = ["Ensemble", "Turn", "ensembles"]

_MOST_TABLES, _MOST_ROWS = 6, 20
_NUMBERS = ("attacked", "broken", "forwards", "backwards", "verifications")


@dataclass(frozen=True, slots=True)
class Turn:
    """One attack: its name and what it was run on, broke, and cost, as text."""

    name: str
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ensemble:
    """The table of one check at one radius."""

    check: str
    where: str
    turns: tuple[Turn, ...]
    calls: str
    """Rows asked for each attacked sample, in a sentence."""


def ensembles(findings: Sequence[Finding]) -> list[Ensemble]:
    """The tables of the findings that list attacks, at most six: the largest radius of each check first."""
    found: list[tuple[float, Ensemble]] = []
    for finding in findings:
        turns = _turns(finding.series.get("attacks"))
        eps, norm = number_parameter(finding, "eps"), text_parameter(finding, "norm") or ""
        if finding.family != "adversarial" or not turns or eps is None:
            continue
        rows = tuple(Turn(name, tuple(f"{number:,}" for number in numbers)) for name, numbers in turns[:_MOST_ROWS])
        spent = sum(sum(numbers[2:]) for _, numbers in turns)
        samples = max(numbers[0] for _, numbers in turns)
        calls = f"{spent / samples:,.0f} rows a sample in all." if samples else ""
        found.append((eps, Ensemble(finding.check, f"{norm_text(norm)}, {eps_text(eps)}", rows, calls)))
    found.sort(key=lambda each: -each[0])
    seen: set[str] = set()
    first = [table for _, table in found if not (table.check in seen or seen.add(table.check))]
    rest = [table for _, table in found if table not in first]
    return [*first, *rest][:_MOST_TABLES]


def _turns(value: object) -> list[tuple[str, tuple[int, ...]]]:
    """Names and numbers out of JSON with suspicion; what is malformed gives no table."""
    if not isinstance(value, list):
        return []
    turns: list[tuple[str, tuple[int, ...]]] = []
    for each in cast("list[object]", value):
        if not isinstance(each, dict):
            return []
        row = cast("Mapping[str, Any]", each)
        numbers = tuple(row.get(name) for name in _NUMBERS)
        if not isinstance(row.get("name"), str) or not all(type(number) is int and number >= 0 for number in numbers):
            return []
        turns.append((row["name"], cast("tuple[int, ...]", numbers)))
    return turns

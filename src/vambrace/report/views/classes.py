"""Accuracy by class, the weakest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from vambrace.report.plots.interval import interval_bar
from vambrace.report.text import share
from vambrace.report.views.series import numbers, same_length

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup

    from vambrace.core.findings import Finding

__all__ = ["ClassRow", "Classes", "by_class", "class_name"]


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One class."""

    name: str
    value: str
    bar: Markup
    n: str


@dataclass(frozen=True, slots=True)
class Classes:
    """The weakest classes, and how many more there are."""

    rows: tuple[ClassRow, ...]
    more: int
    sentence: str


def by_class(findings: Sequence[Finding], model: Mapping[str, Any], most: int) -> Classes | None:
    """The `most` weakest classes of the clean check; None where it has no such series."""
    finding = next((item for item in findings if item.family == "clean" and "class" in item.series), None)
    if finding is None:
        return None
    series = finding.series
    labels, values, counts = numbers(series, "class"), numbers(series, "accuracy"), numbers(series, "n")
    if labels is None or values is None or counts is None or not same_length(labels, values, counts):
        return None
    low, high = numbers(series, "low"), numbers(series, "high")
    ends = low is not None and high is not None and same_length(labels, low, high)
    order = sorted(range(len(values)), key=lambda place: (values[place], labels[place]))
    rows = tuple(
        ClassRow(
            name=class_name(model, round(labels[place])),
            value=share(values[place]),
            bar=interval_bar(
                values[place],
                low[place] if ends and low is not None else None,
                high[place] if ends and high is not None else None,
            ),
            n=f"{counts[place]:,.0f}",
        )
        for place in order[:most]
    )
    weakest, strongest = rows[0], order[-1]
    sentence = (
        f"The weakest class is {weakest.name} with {weakest.value} of {weakest.n} right; "
        f"the strongest is {class_name(model, round(labels[strongest]))} with {share(values[strongest])}."
    )
    return Classes(rows, max(0, len(values) - len(rows)), sentence)


def class_name(model: Mapping[str, Any], label: int) -> str:
    """The name of a class, or its number where it has none."""
    names = cast("list[object]", model.get("class_names") or [])
    return str(names[label]) if 0 <= label < len(names) else f"class {label}"

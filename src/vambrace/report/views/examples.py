"""The worst examples: which saved inputs are shown, and what is said under each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from vambrace.report.pictures import Missing, Strip, read_strip, render
from vambrace.report.text import eps_text, norm_text, number
from vambrace.report.words import metric_label

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from vambrace.core.findings import Evidence, Finding, Results
    from vambrace.report.pictures import Shown

__all__ = ["Example", "Examples", "Images", "USUAL", "examples"]

Images = int | Literal["none", "blur"]
"""How many strips a check shows; "none" shows none; "blur" shows the usual number, unrecognisable."""

USUAL = 6
"""Strips of a check where nothing else is asked for."""

_MOST = 48  # strips of one page


@dataclass(frozen=True, slots=True)
class Example:
    """One strip with its caption; exactly one of `shown` and `missing` says something."""

    shown: Shown | None
    missing: str
    label: str
    prediction: str
    facts: tuple[str, ...]
    sample: str
    finding: str


@dataclass(frozen=True, slots=True)
class Examples:
    """The strips of one check."""

    check: str
    family: str
    label: str
    strips: tuple[Example, ...]
    saved: int


def examples(results: Results, run: Path, *, images: Images, budget: int) -> list[Examples]:
    """The strips of every check that saved inputs, together at most `budget` bytes."""
    most = USUAL if isinstance(images, str) else images
    if images == "none" or most == 0:
        return []
    chosen: list[tuple[Finding, list[Evidence]]] = []
    checks: dict[str, int] = {}
    room = _MOST
    for finding in results.findings:
        kept = list(finding.evidence)[: min(most - checks.get(finding.check, 0), room)]
        if kept:
            chosen.append((finding, kept))
            checks[finding.check] = checks.get(finding.check, 0) + len(kept)
            room -= len(kept)
    bounds = results.model.get("bounds")
    read = [
        (evidence, read_strip(run, evidence, bounds, blur=images == "blur")) for _, kept in chosen for evidence in kept
    ]
    drawn = iter(render([strip for _, strip in read if isinstance(strip, Strip)], budget))
    made = iter([_example(evidence, strip, drawn, results.model) for evidence, strip in read])
    return [
        Examples(
            check=finding.check,
            family=finding.family,
            label=metric_label(finding),
            strips=tuple(next(made) for _ in kept),
            saved=len(finding.evidence),
        )
        for finding, kept in chosen
    ]


def _example(
    evidence: Evidence, strip: Strip | Missing, drawn: Iterator[Shown | None], model: Mapping[str, Any]
) -> Example:
    shown = None if isinstance(strip, Missing) else next(drawn)
    missing = strip.reason if isinstance(strip, Missing) else "" if shown else "There was no room left for the picture."
    data = evidence.data
    return Example(
        shown=shown,
        missing=missing,
        label=_class(data, "label", model),
        prediction=_class(data, "prediction", model),
        facts=tuple(_facts(data)),
        sample=str(data.get("name") or evidence.sample),
        finding=evidence.finding,
    )


def _class(data: Mapping[str, Any], key: str, model: Mapping[str, Any]) -> str:
    from vambrace.report.views.classes import class_name

    name = data.get(f"{key}_name")
    if isinstance(name, str) and name:
        return name
    place = data.get(key)
    return class_name(model, place) if isinstance(place, int) else "?"


def _facts(data: Mapping[str, Any]) -> Iterator[str]:
    norm, eps, distance = data.get("norm"), data.get("eps"), data.get("distance")
    where = f"{norm_text(norm)} " if isinstance(norm, str) else ""
    if isinstance(distance, int | float):
        within = f" of {eps_text(eps)} allowed" if isinstance(eps, int | float) else ""
        yield f"{where}distance {eps_text(distance) if distance == eps else number(distance)}{within}"
    if isinstance(data.get("perturbation"), str):
        yield f"{data['perturbation']}, severity {data.get('severity', '?')}"
    if isinstance(margin := data.get("margin"), int | float):
        yield f"margin {number(margin)}"

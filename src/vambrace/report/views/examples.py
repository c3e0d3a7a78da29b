"""The worst examples: which saved inputs are shown, and what is said under each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from vambrace.report.pictures import Missing, Strip, read_strip, render
from vambrace.report.text import eps_text, norm_text, number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from vambrace.core.findings import Evidence, Finding, Results
    from vambrace.report.pictures import Shown

__all__ = ["Example", "Examples", "Images", "USUAL", "examples"]

Images = int | Literal["all", "none", "blur"]
"""How many strips a check shows; "all" as many as the page has room for; "blur" the usual number, unrecognisable."""

USUAL = 6
"""Strips of a check where nothing else is asked for."""

_FEW = 3  # strips of a check that are shown whatever the others show
_ROOM = 24  # strips of one page
_MOST = 96  # strips of one page where more than the usual number is asked for


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
    """The strips of one check, and how many inputs it saved."""

    check: str
    family: str
    strips: tuple[Example, ...]
    saved: int


def examples(results: Results, run: Path, *, images: Images, budget: int) -> list[Examples]:
    """The strips of every check that saved inputs, together at most `budget` bytes."""
    most = {"none": 0, "blur": USUAL, "all": _MOST}[images] if isinstance(images, str) else images
    saved: dict[str, list[Finding]] = {}
    for finding in results.findings:
        if finding.evidence:
            saved.setdefault(finding.check, []).append(finding)
    if not saved or not most:
        return []
    most = min(most, max(_FEW, (_ROOM if most <= USUAL else _MOST) // len(saved)))
    chosen = {check: _in_turn([finding.evidence for finding in found], most) for check, found in saved.items()}
    bounds, blur = results.model.get("bounds"), images == "blur"
    read = {
        check: [(evidence, read_strip(run, evidence, bounds, blur=blur)) for evidence in kept]
        for check, kept in list(chosen.items())[:_MOST]
    }
    drawn = iter(render([strip for strips in read.values() for _, strip in strips if isinstance(strip, Strip)], budget))
    return [
        Examples(
            check=check,
            family=saved[check][0].family,
            strips=tuple(_example(evidence, strip, drawn, results.model) for evidence, strip in strips),
            saved=sum(len(finding.evidence) for finding in saved[check]),
        )
        for check, strips in read.items()
    ]


def _in_turn(lists: Sequence[Sequence[Evidence]], most: int) -> list[Evidence]:
    """At most `most` items, taken from the lists in turn and kept in their order: every radius shows its worst."""
    turns = [(turn, place) for turn in range(most) for place, items in enumerate(lists) if turn < len(items)]
    return [lists[place][turn] for place, turn in sorted((place, turn) for turn, place in turns[:most])]


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

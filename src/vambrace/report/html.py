"""One HTML file that needs nothing else: no script, no network, light and dark, phone, desk and paper.

Text of strangers (class names, paths, reasons, plug-ins) passes three doors: `visible` marks what could
hide or reorder, Jinja's autoescape makes it text, and the content security policy admits no script and
only the one style sheet, by its hash. The page is at most 8 MB: pictures share what is left over, and if
text alone is too much the page is made again with fewer rows and shorter text.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from vambrace.report.palette import DARK, LIGHT, variables
from vambrace.report.selection import MISSING, by_family
from vambrace.report.text import visible
from vambrace.report.views import about, attacks, classes, examples, leakage, limits, reliability, robustness, scorecard
from vambrace.report.words import FAMILIES, VERDICTS, exit_meaning, family_title

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vambrace.core.findings import Results
    from vambrace.report.views.examples import Examples, Images

__all__ = ["LARGEST_PAGE", "policy", "render"]

LARGEST_PAGE = 8_000_000
"""Bytes of the largest page."""

_PICTURES = 5_500_000
_MOST_FAMILIES = 12


@dataclass(frozen=True, slots=True)
class _Size:
    """How much of a page is shown: rows of a table, characters of a text, bytes of pictures."""

    rows: int
    text: int
    pictures: int


_SIZES = (_Size(400, 1500, _PICTURES), _Size(120, 600, 2_000_000), _Size(30, 200, 0), _Size(10, 80, 0))


@dataclass(frozen=True, slots=True)
class _Section:
    """A family's own section."""

    place: int
    family: str
    title: str
    question: str
    rows: tuple[scorecard.Row, ...]
    more: int
    examples: tuple[Examples, ...]


def render(
    results: Results,
    run: Path,
    *,
    timings: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    images: Images = examples.USUAL,
) -> bytes:
    """The page of a run whose evidence lies below the directory `run`."""
    page = b""
    for size in _SIZES:
        page = _render(results, run, timings or {}, environment or {}, images if size.pictures else "none", size)
        if len(page) <= LARGEST_PAGE:
            break
    return page


def policy(style: str) -> str:
    """The content security policy of a page with this style sheet and nothing else."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"


def _render(
    results: Results,
    run: Path,
    timings: Mapping[str, Any],
    environment: Mapping[str, Any],
    images: Images,
    size: _Size,
) -> bytes:
    name = "/".join(part for part in run.resolve().parts[-2:] if part != "/")
    seconds = about.seconds_by_check(timings)
    style = _style()
    strips = examples.examples(results, run, images=images, budget=size.pictures)
    cost, phases = about.cost_rows(results, timings)
    gates = scorecard.gate_rows(results.gates)
    sections = _sections(results, seconds, strips, size)
    context: dict[str, Any] = {
        "style": Markup(style),  # noqa: S704  our own file: no text of strangers
        "policy": policy(style),
        "run": name,
        "verdict": results.verdict,
        "look": VERDICTS.get(results.verdict.word, "measured"),
        "exit_meaning": exit_meaning(results.verdict),
        "subject": about.subject(results),
        "tiles": scorecard.tiles(results),
        "gates": gates[: size.rows],
        "more_gates": max(0, len(gates) - size.rows),
        "held": sum(gate.look == "pass" for gate in gates),
        "flags": reliability.flags(results.findings)[: size.rows],
        "sound": any(f.family != "preflight" and f.status not in MISSING for f in results.findings),
        "struck": any(row.struck for section in sections for row in section.rows),
        "facts": about.facts(results, environment),
        "planned": about.planned(results)[: size.rows],
        "groups": scorecard.groups(results, seconds, size.rows)[:_MOST_FAMILIES],
        "sections": sections,
        "curves": robustness.curves(results.findings),
        "ensembles": attacks.ensembles(results.findings),
        "heat": robustness.heat_map(results.findings),
        "rocs": leakage.rocs(results.findings),
        "classes": classes.by_class(results.findings, results.model, min(size.rows, 15)),
        "left_out": results.left_out[: size.rows],
        "more_left": max(0, len(results.left_out) - size.rows),
        "limits": limits.limits(results),
        "commands": about.commands(results, environment, name),
        "cost": cost[-size.rows :],
        "phases": phases[: size.rows],
        "images": images,
        "schema": results.schema,
        "version": results.versions.get("vambrace", ""),
    }
    return _templates(size.text).get_template("page.html.j2").render(context).encode("utf-8", "replace")


def _sections(results: Results, seconds: Mapping[str, float], strips: list[Examples], size: _Size) -> list[_Section]:
    """Families with a section of their own, in the report's order."""
    families = [(family, found) for family, found in by_family(results.findings) if family != "preflight"]
    return [
        _Section(
            place=place,
            family=family,
            title=family_title(family),
            question=FAMILIES[family][1] if family in FAMILIES else "",
            rows=scorecard.rows(findings[: size.rows], results.gates, seconds),
            more=max(0, len(findings) - size.rows),
            examples=tuple(group for group in strips if group.family == family),
        )
        for place, (family, findings) in enumerate(families[:_MOST_FAMILIES])
    ]


@cache
def _style() -> str:
    rules = resources.files("vambrace.report").joinpath("templates/report.css").read_text(encoding="utf-8")
    light, dark = variables(LIGHT), variables(DARK)
    screen = f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    return f":root{{{light}}}\n{screen}\n{rules}"


@cache
def _templates(longest: int) -> jinja2.Environment:
    def shown(value: object) -> object:
        if not isinstance(value, str) or isinstance(value, Markup):
            return value
        return visible(value, longest).replace(" %", "\u00a0%")  # a number and its sign stay on one line

    return jinja2.Environment(
        loader=jinja2.PackageLoader("vambrace.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )

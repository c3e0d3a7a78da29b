"""What can be done with a finished run from its files alone: its reports and its judgement again. Needs no torch."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from typing import TYPE_CHECKING, Any, Literal, cast

from vambrace.assess.gates import against_baseline, apply, judge
from vambrace.assess.plan import GateSpec
from vambrace.assess.reading import read_gates, read_table
from vambrace.assess.shipped import beside, shipped_for
from vambrace.assess.verdict import Ending, verdict
from vambrace.core.files import read_file
from vambrace.core.spec import read
from vambrace.errors import ConfigError
from vambrace.report import read_results, write

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vambrace.core.findings import Results

__all__ = ["rejudge", "rewrite"]

Format = Literal["html", "json", "junit"]


def rewrite(run: Path, formats: Sequence[Format], *, images: int | Literal["all", "none", "blur"] = 6) -> list[Path]:
    """Write a run's reports again from its results.

    Args:
        run: a run directory with results.json.
        formats: which reports.
        images: worst examples a check on the page; "all", "none", or "blur" for unrecognisable ones.

    Raises:
        ConfigError: E550 to E554, for results that cannot be read or a format that is not known.
        ResourceError: E601, where a file cannot be written.
    """
    results = _results(run)
    return write(
        results,
        run,
        formats,
        timings=_beside(run, "timings.json"),
        environment=_beside(run, "environment.json"),
        images=images,
    )


def rejudge(run: Path, *, baseline: Path | None = None, plan: Path | None = None) -> Results:
    """A finished run judged again; nothing is measured and nothing is written.

    Args:
        run: a run directory with results.json.
        baseline: another run that this one may not fall below; None: the one it was compared with, if any.
        plan: a plan file whose gates stand in place of the run's own, beside the shipped ones of the run's profile; one
            without gates changes nothing.

    Returns:
        The results with new gates, statuses and verdict. What cut the run short still counts.
    """
    results = _results(run)
    kept = run / "baseline.json"
    before = _results(baseline) if baseline else (read_results(kept) if kept.is_file() else None)
    ended = cast("dict[str, Any]", results.plan.get("ending") or {})
    planned = _planned(results)
    if plan is not None:
        named = read_gates(read_table(plan), where=plan.name)
        planned = None if named is None else beside(named, shipped_for(results)) if named else planned
    wanted = against_baseline(planned, before)
    judged = judge(wanted or (), results.findings, data=results.data, plan=results.plan, baseline=before)
    findings = apply(results.findings, judged)
    ending = Ending(
        findings=findings,
        gates=judged,
        judged=wanted is not None,
        required=[check["id"] for check in results.plan["checks"] if check["required"]],
        unfinished=str(ended.get("unfinished", "")),
        starved=str(ended.get("starved", "")),
        interrupted=bool(ended.get("interrupted", False)),
        bug=str(ended.get("bug", "")),
    )
    return dataclasses.replace(results, findings=findings, gates=judged, verdict=verdict(ending))


def _planned(results: Results) -> tuple[GateSpec, ...] | None:
    gates = cast("list[dict[str, Any]] | None", results.plan.get("gates"))
    return None if gates is None else tuple(read(GateSpec, gate, where="gate") for gate in gates)


def _results(run: Path) -> Results:
    path = run / "results.json"
    if not path.is_file():
        raise ConfigError(
            "E577",
            seen=f"{run} " + ("has no results.json" if run.is_dir() else "is not there"),
            expected="the directory of a finished run",
            fix=f"finish it with `vambrace assess --resume {run}`" if run.is_dir() else "check the path",
        )
    return read_results(path)


def _beside(run: Path, name: str) -> dict[str, Any] | None:
    """A file that only decorates the report; a missing or damaged one costs the decoration."""
    with contextlib.suppress(OSError, ValueError):
        data: object = json.loads(read_file(run / name))
        if isinstance(data, dict):
            return cast("dict[str, Any]", data)
    return None

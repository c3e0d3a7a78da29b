"""`vambrace assess`, `check` and `init`: from a model and data to a report, a preflight, or a plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from vambrace.cli.flags import ContractFlags, RunFlags, SourceFlags, flagged
from vambrace.cli.speaking import progress, say, wants_colour
from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vambrace.assess.plan import Plan
    from vambrace.assess.rehearsing import Rehearsal
    from vambrace.assess.report import Report

__all__ = ["assess", "check", "init", "show"]

PlanFile = Annotated[Path | None, typer.Argument(metavar="[PLAN]", help="A vambrace.toml; flags come on top of it.")]


@flagged
def assess(
    plan: PlanFile = None,
    *,
    source: SourceFlags,
    contract: ContractFlags,
    run: RunFlags,
    only: Annotated[
        list[str] | None, typer.Option(help="Run only this check or kind of check; may be repeated.")
    ] = None,
    no_gates: Annotated[bool, typer.Option("--no-gates", help="Measure and do not judge.")] = False,
    baseline: Annotated[Path | None, typer.Option(help="A finished run that this one may not fall below.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Continue what is unfinished in RUN.")] = None,
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="With --resume: rerun units in error.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run, and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="results.json on stdout.")] = False,
) -> None:
    """Assess a model with data: report, results and an exit code.

    Exit codes: 0 all required gates pass; 1 a gate failed; 2 usage; 3 model or data refused; 4 incomplete;
    5 unreliable; 6 resources; 70 a bug; 130 interrupted.
    """
    from vambrace.assess import running

    if resume is not None:
        report = running.resume(resume, retry_errors=retry_errors, baseline=baseline, progress=progress())
    else:
        if retry_errors:
            raise ConfigError(
                "E573", seen="--retry-errors without --resume", expected="a run to continue", fix="add --resume RUN"
            )
        wanted = _plan(plan, source.table(), contract.table(), run.table(), gates="none" if no_gates else None)
        listener = progress(wanted.run.budget)
        if dry_run:
            _echo_rehearsal(running.rehearse(wanted, only=tuple(only or ()), progress=listener))
            return
        report = running.execute(wanted, only=tuple(only or ()), baseline=baseline, progress=listener)
    show(report, as_json=as_json)
    raise typer.Exit(report.exit_code)


@flagged
def check(
    plan: PlanFile = None,
    *,
    source: SourceFlags,
    contract: ContractFlags,
    run: RunFlags,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable, on stdout.")] = False,
) -> None:
    """Preflight only: load the model and the data, probe both, say what would go wrong."""
    from vambrace.assess import running

    wanted = _plan(plan, source.table(), contract.table(), run.table())
    rehearsal = running.rehearse(wanted, progress=progress())
    if as_json:
        typer.echo(json.dumps(rehearsal.as_json(), indent=2, ensure_ascii=False))
    else:
        _echo_rehearsal(rehearsal)
    raise typer.Exit(rehearsal.exit_code)


@flagged
def init(
    model: Annotated[str, typer.Argument(help="Weights (.safetensors, .pt) or an ONNX file.")],
    data: Annotated[str, typer.Argument(help="Folder, zip, npy, npz, idx, pkg.mod:fn, or digits.")],
    *,
    source: SourceFlags,
    contract: ContractFlags,
    run: RunFlags,
    to: Annotated[Path, typer.Option("--to", help="Where to write the plan.")] = Path("vambrace.toml"),
    force: Annotated[bool, typer.Option("--force", help="Replace an existing plan.")] = False,
) -> None:
    """Probe a model and data and write a commented vambrace.toml."""
    from vambrace.assess import running
    from vambrace.assess.writing import write_commented_toml
    from vambrace.core.files import write_file

    if to.exists() and not force:
        raise ConfigError(
            "E574", seen=f"{to} exists already", expected="a new file", fix="add --force, or choose another --to"
        )
    given = source.table()
    given.setdefault("model", {})["source"] = model
    given.setdefault("data", {}).setdefault("eval", {})["source"] = data
    wanted = _plan(None, given, contract.table(), run.table(), base=to.resolve().parent)
    rehearsal = running.rehearse(wanted, progress=progress())
    _echo_rehearsal(rehearsal)
    write_file(to, write_commented_toml(rehearsal.plan, rehearsal.notes()).encode())
    say(f"wrote {to}; run: vambrace assess {to}")


def show(report: Report, *, as_json: bool = False) -> None:
    """Say how a run ended: the summary for people on stderr, or results.json on stdout beside it."""
    import shutil
    import sys

    from vambrace.report.terminal import summary

    width = shutil.get_terminal_size((100, 24)).columns
    say(summary(report.results, width=width, colour=wants_colour(sys.stderr)))
    for path in report.written:
        say(f"wrote {path}")
    say(f"exit {report.exit_code}")
    if as_json:
        typer.echo((report.path / "results.json").read_text(encoding="utf-8"))


def _plan(
    file: Path | None,
    *parts: Mapping[str, Any],
    gates: str | None = None,
    base: Path | None = None,
) -> Plan:
    """One plan from a file (if any) with flags on top, through the one dialect."""
    from vambrace.assess.reading import parse_plan, read_table

    table: dict[str, Any] = read_table(file) if file is not None else {}
    for part in parts:
        _overlay(table, part)
    if gates:
        table["gates"] = gates
        table.pop("gate", None)
    if not table.get("model") or not table.get("data"):
        raise ConfigError(
            "E575",
            seen="no model or no data",
            expected="a plan file, or --model and --data",
            fix="vambrace assess --model net.onnx --data val/, or try vambrace demo",
        )
    where = str(file) if file is not None else "the command line"
    return parse_plan(table, base=base or (file.resolve().parent if file is not None else Path.cwd()), where=where)


def _overlay(table: dict[str, Any], part: Mapping[str, Any]) -> None:
    for key, value in part.items():
        below: object = table.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            _overlay(cast("dict[str, Any]", below), cast("dict[str, Any]", value))
        else:
            table[key] = value


def _echo_rehearsal(rehearsal: Rehearsal) -> None:
    lines: Sequence[str] = rehearsal.lines()
    for line in lines:
        typer.echo(line)

"""`vambrace assess`, `check` and `init`: from a model and data to a report, a preflight, or a plan."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vambrace.cli.bar import Bar, listening
from vambrace.cli.flags import ContractFlags, RunFlags, SourceFlags
from vambrace.cli.planning import planned
from vambrace.cli.speaking import columns, say, say_as_is, say_lines, tell, wants_colour
from vambrace.cli.spreading import flagged
from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vambrace.assess.rehearsing import Rehearsal
    from vambrace.assess.report import Report
    from vambrace.core.progress import Progress

__all__ = ["announcer", "assess", "check", "init", "show"]

PlanFile = Annotated[Path | None, typer.Argument(metavar="[PLAN]")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable, on stdout.")]

_TO_BE_CONTINUED = frozenset({4, 6, 70, 130})


@flagged
def assess(
    plan: PlanFile = None,
    *,
    source: SourceFlags,
    contract: ContractFlags,
    run: RunFlags,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="CHECK", help="Only this check: an id, kind, method or pattern; may be repeated."),
    ] = None,
    no_gates: Annotated[bool, typer.Option("--no-gates", help="Measure, and do not judge.")] = False,
    baseline: Annotated[
        Path | None, typer.Option(metavar="RUN", help="A finished run that this one may not fall below.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Continue what is unfinished in RUN.")] = None,
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="With --resume: rerun units in error.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run, and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="results.json on stdout.")] = False,
) -> None:
    """Assess a model with data: report, results and an exit code.

    PLAN is a vambrace.toml; flags come on top of it, and --model with --data needs no PLAN.

    Exit codes: 0 all required gates hold; 1 a gate failed; 2 usage; 3 model or data refused; 4 incomplete;
    5 unreliable; 6 resources; 70 a bug; 130 interrupted.
    """
    from vambrace.assess import running

    if resume is not None:
        given = {
            "PLAN": plan is not None,
            "--model, --data or another source": bool(source.table()),
            "a flag of the input contract": bool(contract.table()),
            "--only": bool(only),
            "--no-gates": no_gates,
            "--dry-run": dry_run,
        }
        report = _resumed(resume, run, [name for name, there in given.items() if there], retry_errors, baseline)
    else:
        if retry_errors:
            raise ConfigError(
                "E573", seen="--retry-errors without --resume", expected="a run to continue", fix="add --resume RUN"
            )
        wanted = planned(plan, source, contract, run, judge=not no_gates)
        with listening(wanted.run.budget) as progress:
            if dry_run:
                _tell_rehearsal(running.rehearse(wanted, only=tuple(only or ()), progress=progress), as_json=as_json)
                return
            report = running.execute(
                wanted, only=tuple(only or ()), baseline=baseline, announce=announcer(progress), progress=progress
            )
    show(report)
    if as_json and report.written:
        tell((report.path / "results.json").read_text(encoding="utf-8"))
    raise typer.Exit(report.exit_code)


@flagged
def check(
    plan: PlanFile = None,
    *,
    source: SourceFlags,
    contract: ContractFlags,
    run: RunFlags,
    as_json: Json = False,
) -> None:
    """Preflight only: open model and data, probe both, say what would run.

    PLAN is a vambrace.toml; flags come on top of it. Exits 5 where the model's behaviour makes numbers meaningless.
    """
    from vambrace.assess import running

    with listening() as progress:
        rehearsal = running.rehearse(planned(plan, source, contract, run), progress=progress)
    _tell_rehearsal(rehearsal, as_json=as_json)
    raise typer.Exit(rehearsal.exit_code)


@flagged
def init(
    model: Annotated[str, typer.Argument()],
    data: Annotated[str, typer.Argument()],
    *,
    source: SourceFlags,
    contract: ContractFlags,
    run: RunFlags,
    to: Annotated[
        Path, typer.Option("--to", help="Where to write it (default: vambrace.toml).", show_default=False)
    ] = (Path("vambrace.toml")),
    force: Annotated[bool, typer.Option("--force", help="Replace an existing plan.")] = False,
) -> None:
    """Probe a model and data, and write a commented vambrace.toml.

    MODEL holds weights (.safetensors, .pt) or is an ONNX file. DATA is a folder, zip, npy, npz, idx, pkg.mod:fn, or
    digits.
    """
    import dataclasses

    from vambrace.assess import running
    from vambrace.assess.writing import write_commented_toml
    from vambrace.core.files import write_file

    _check_place(to, force=force)
    given = dataclasses.replace(source, model=model, data=data)
    with listening() as progress:
        wanted = planned(None, given, contract, run, base=to.parent)
        rehearsal = running.rehearse(wanted, progress=progress)
    say_lines(rehearsal.lines())
    write_file(to, write_commented_toml(rehearsal.plan, rehearsal.notes()).encode())
    say(f"wrote {to}; next: vambrace assess {shlex.quote(str(to))}")


def announcer(progress: Progress) -> Callable[[Rehearsal], None]:
    """What says on stderr what a run has before it and what it will do, and tells the bar how long that may take."""

    def announce(rehearsal: Rehearsal) -> None:
        say_lines([*rehearsal.subject(), rehearsal.outline(), *rehearsal.short_of_time()])
        if isinstance(progress, Bar):
            workers = rehearsal.resolved.run.workers
            progress.expect({name: spent / workers for name, spent in rehearsal.seconds.items()}, rehearsal.units)

    return announce


def show(report: Report) -> None:
    """Say on stderr how a run ended, where its files are, and how to go on with one that is not complete."""
    from vambrace.report.terminal import summary

    run = str(report.path)
    say("")
    written = [path.name for path in report.written]
    say_as_is(
        summary(report.results, width=columns(sys.stderr), colour=wants_colour(sys.stderr), run=run, written=written)
    )
    if report.exit_code in _TO_BE_CONTINUED and report.results.verdict.exit_code in _TO_BE_CONTINUED:
        say_lines([f"continue vambrace assess --resume {shlex.quote(run)}"], indent=9)


def _check_place(to: Path, *, force: bool) -> None:
    """Refuse a place where no plan can be written, or one where something lies, before the probing.

    Raises:
        ConfigError: E574, E582.
    """
    if to.is_dir() or not to.parent.is_dir():
        raise ConfigError(
            "E582",
            seen=f"{to} is a folder" if to.is_dir() else f"the folder {to.parent} is not there",
            expected="a file in a folder that exists, such as vambrace.toml",
            fix=f"choose another --to, such as --to {to / 'vambrace.toml'}" if to.is_dir() else f"mkdir {to.parent}",
        )
    if to.exists() and not force:
        raise ConfigError(
            "E574", seen=f"{to} exists already", expected="a new file", fix="add --force, or choose another --to"
        )


def _resumed(path: Path, run: RunFlags, given: list[str], retry_errors: bool, baseline: Path | None) -> Report:
    """The rest of a run: its plan is its own; only what changes no number may be said anew.

    Raises:
        ConfigError: E580, for flags that belong to a plan.
    """
    from vambrace.assess import running
    from vambrace.assess.rehearsing import described
    from vambrace.assess.rundir import read_run_file
    from vambrace.core.options import parse_duration

    other = sorted(name for name in run.given() if name not in {"budget", "workers"})
    given += [f"--{name}" for name in other]
    if given:
        raise ConfigError(
            "E580",
            seen=f"--resume with {', '.join(given)}",
            expected="--resume RUN, with --budget, --workers, --retry-errors, --baseline or --json",
            fix="leave the rest out: a run goes on with the plan it began with; to change it, start a new run",
        )
    budget = None if run.budget is None else parse_duration(run.budget)
    file = read_run_file(path)
    planned_budget = file.plan["run"]["budget"]
    say_lines(described(file.facts))
    with listening(planned_budget if budget is None else budget) as progress:
        return running.resume(
            path, retry_errors=retry_errors, budget=budget, workers=run.workers, baseline=baseline, progress=progress
        )


def _tell_rehearsal(rehearsal: Rehearsal, *, as_json: bool) -> None:
    if as_json:
        tell(json.dumps(rehearsal.as_json(), indent=2, ensure_ascii=False))
        return
    for line in rehearsal.lines():
        tell(line)

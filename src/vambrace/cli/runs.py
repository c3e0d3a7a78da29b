"""`vambrace report`, `gate` and `replay`: what can be done with a finished run. The first two need no torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from vambrace.cli.speaking import columns, say, tell, wants_colour

if TYPE_CHECKING:
    from vambrace.assess.reporting import Format

__all__ = ["gate", "replay", "report"]

Run = Annotated[Path, typer.Argument()]


def report(
    run: Run,
    to: Annotated[
        str, typer.Option("--to", help="html, json, junit, comma-separated (default: all).", show_default=False)
    ] = "html,json,junit",
    images: Annotated[
        str,
        typer.Option(
            help="Worst examples a check shows: a number, all, blur or none (default: 6).", show_default=False
        ),
    ] = "6",
) -> None:
    """Write a run's reports again, from its results; nothing is measured.

    RUN is a run directory, such as runs/demo. The paths that were written go to stdout.
    """
    from vambrace.assess.reporting import rewrite

    formats = [name.strip() for name in to.split(",") if name.strip()]
    wanted = int(images) if images.isascii() and images.isdigit() else images
    # Both are checked by `write`, which names what it knows.
    for path in rewrite(run, cast("list[Format]", formats), images=cast("int | Literal['none', 'blur']", wanted)):
        tell(str(path))


def gate(
    run: Run,
    baseline: Annotated[
        Path | None, typer.Option(metavar="RUN", help="A finished run that this one may not fall below.")
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(metavar="PLAN", help="Take the gates from this plan instead of the run's own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The results as judged now, on stdout.")] = False,
) -> None:
    """Judge a finished run again, by its own gates or a plan's; nothing is measured, nothing is written.

    RUN is a run directory, such as runs/demo. The judgement goes to stdout, with --json to stderr. The exit code is
    the one that `assess` would have given.
    """
    from vambrace.assess.reporting import rejudge
    from vambrace.core.canonical import dumps
    from vambrace.report.terminal import summary

    results = rejudge(run, baseline=baseline, plan=plan)
    # The judgement is what was asked for: it belongs on stdout, unless that is for machines.
    stream = sys.stderr if as_json else sys.stdout
    (say if as_json else tell)(summary(results, width=columns(stream), colour=wants_colour(stream)))
    if as_json:
        tell(dumps(results.as_json()).decode())
    raise typer.Exit(results.verdict.exit_code)


def replay(
    run: Run,
    finding: Annotated[str, typer.Argument()],
) -> None:
    """Run one saved example through the model again; exits 5 when it does not hold.

    RUN is a run directory, FINDING the example's name, as the report shows it. The prediction must be the recorded
    one, and the saved change must lie inside its radius and the bounds.
    """
    from vambrace.assess.replaying import replay as again

    outcome = again(run, finding)
    for line in outcome.lines():
        tell(line)
    raise typer.Exit(outcome.exit_code)

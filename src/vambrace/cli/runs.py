"""`vambrace report`, `gate` and `replay`: what can be done with a finished run. The first two need no torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from vambrace.cli.speaking import say, wants_colour

if TYPE_CHECKING:
    from vambrace.assess.reporting import Format

__all__ = ["gate", "replay", "report"]

Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, such as runs/demo.")]


def report(
    run: Run,
    to: Annotated[str, typer.Option("--to", help="Formats, comma-separated: html, json, junit.")] = "html,json,junit",
    images: Annotated[
        str, typer.Option("--images", help="Worst examples a check shows: a number, all, blur or none.")
    ] = "6",
) -> None:
    """Write a run's reports again, from its results; nothing is measured."""
    from vambrace.assess.reporting import rewrite

    formats = [name.strip() for name in to.split(",") if name.strip()]
    wanted = int(images) if images.isdigit() else images
    # Both are checked by `write`, which names what it knows.
    for path in rewrite(run, cast("list[Format]", formats), images=cast("int | Literal['all', 'none', 'blur']", wanted)):
        typer.echo(str(path))


def gate(
    run: Run,
    baseline: Annotated[Path | None, typer.Option(help="A finished run that this one may not fall below.")] = None,
    plan: Annotated[Path | None, typer.Option(help="Take the gates from this plan instead of the run's own.")] = None,
) -> None:
    """Judge a finished run again, by its own gates or by a plan's; nothing is measured and nothing is written."""
    from vambrace.assess.reporting import rejudge
    from vambrace.report.terminal import summary

    results = rejudge(run, baseline=baseline, plan=plan)
    say(summary(results, width=100, colour=wants_colour(sys.stderr)))
    raise typer.Exit(results.verdict.exit_code)


def replay(
    run: Run,
    finding: Annotated[str, typer.Argument(help="The finding's id, as the report shows it.")],
) -> None:
    """Run one saved example through the model again; exits 5 when it does not hold.

    The prediction must be the recorded one, and the saved change must lie inside its radius and the bounds.
    """
    from vambrace.assess.replaying import replay as again

    outcome = again(run, finding)
    for line in outcome.lines():
        typer.echo(line)
    raise typer.Exit(outcome.exit_code)

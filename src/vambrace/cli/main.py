"""`vambrace`: the commands, and how errors become words and exit codes.

What a command needs is imported when it runs, so `vambrace --help` stays fast and needs no torch.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from vambrace import __version__
from vambrace.cli.assessing import assess, check, init
from vambrace.cli.catalogue import doctor, explain, listing
from vambrace.cli.demo import demo
from vambrace.cli.runs import gate, replay, report
from vambrace.cli.speaking import say_error
from vambrace.errors import VambraceError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["app", "main"]

app = typer.Typer(
    name="vambrace",
    help="Measure whether a model can be trusted: point it at a model and data, get a report and an exit code.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.command("assess")(assess)
app.command("init")(init)
app.command("check")(check)
app.command("report")(report)
app.command("gate")(gate)
app.command("replay")(replay)
app.command("list")(listing)
app.command("explain")(explain)
app.command("doctor")(doctor)
app.command("demo")(demo)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vambrace {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Measure whether a model can be trusted: point it at a model and data, get a report and an exit code."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; the console script exits with it.

    Errors of the tree are told in one paragraph and exit with their own code; anything else is a bug: exit 70.
    """
    import click

    try:
        outcome = app(args=None if arguments is None else list(arguments), standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        typer.echo("interrupted", err=True)
        return 130
    except VambraceError as error:
        say_error(error)
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output left; that is its choice and no failure of ours.
        sys.stderr.close()
        return 0
    except Exception as error:  # noqa: BLE001  the last line of defence: a bug must end as exit 70 with its traceback
        return _bug(error)


def _bug(error: Exception) -> int:
    import traceback

    typer.echo("".join(traceback.format_exception(error)), err=True)
    typer.echo(
        f"E900: a bug in vambrace {__version__}; please report the lines above (vambrace explain E900)", err=True
    )
    return 70


if __name__ == "__main__":
    sys.exit(main())

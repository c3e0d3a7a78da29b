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
from vambrace.cli.helping import Command, Group
from vambrace.cli.obfuscating import obfuscate, restore, trace, unlock
from vambrace.cli.privacy import app as private
from vambrace.cli.runs import gate, replay, report
from vambrace.cli.sealed import inspect, rekey, rewrap, sign, verify
from vambrace.cli.sealing import keygen, open_file, seal_file
from vambrace.cli.secrets import refuse_typed
from vambrace.cli.speaking import buffer_stdout, say, say_as_is, say_error, tell
from vambrace.errors import ConfigError, ResourceError, VambraceError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["app", "main"]

app = typer.Typer(
    name="vambrace",
    cls=Group,
    help="Measure whether a model can be trusted: point it at a model and data, get a report and an exit code.",
    epilog="Start with: vambrace demo. Then: vambrace assess --model net.onnx --data val/",
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.command("demo", cls=Command, short_help="Train a small network, assess it, show the report.")(demo)
app.command("assess", cls=Command, short_help="Assess a model: report, results and an exit code.")(assess)
app.command("check", cls=Command, short_help="Preflight only: say what would go wrong.")(check)
app.command("init", cls=Command, short_help="Write a commented vambrace.toml.")(init)
app.command("report", cls=Command, short_help="Write a run's reports again.")(report)
app.command("gate", cls=Command, short_help="Judge a finished run again.")(gate)
app.command("replay", cls=Command, short_help="Run one saved example again.")(replay)
app.command("list", cls=Command, short_help="List attacks, perturbations and checks.")(listing)
app.command("explain", cls=Command, short_help="Say what a code means and what to do.")(explain)
app.command("doctor", cls=Command, short_help="Check versions, devices and bad combinations.")(doctor)
app.command("seal", cls=Command, short_help="Seal a file or folder for chosen readers.")(seal_file)
app.command("open", cls=Command, short_help="Open a sealed file.")(open_file)
app.command("inspect", cls=Command, short_help="Say what a sealed file tells about itself.")(inspect)
app.command("verify", cls=Command, short_help="Check that something is intact, and who made it.")(verify)
app.command("sign", cls=Command, short_help="Sign a file or folder, such as a run.")(sign)
app.command("rewrap", cls=Command, short_help="Change who can open a sealed file.")(rewrap)
app.command("rekey", cls=Command, short_help="Seal a sealed file anew under another key.")(rekey)
app.command("keygen", cls=Command, short_help="Make a key to seal for, to sign with, or to share.")(keygen)
app.command("obfuscate", cls=Command, short_help="Rewrite an ONNX model so that it is harder to read.")(obfuscate)
app.command("restore", cls=Command, short_help="Lead an obfuscated model back by its map.")(restore)
app.command("unlock", cls=Command, short_help="Put a key-locked model in order.")(unlock)
app.command("trace", cls=Command, short_help="Say whose copy a model is.")(trace)
app.add_typer(private, name="dp", short_help="Epsilon, noise or steps of private training.")


def _version(wanted: bool) -> None:
    if wanted:
        tell(f"vambrace {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; the console script exits with it.

    Errors of the tree are told in one paragraph and exit with their own code; anything else is a bug: exit 70.
    """
    import click

    if arguments is None:  # the process is ours
        buffer_stdout()
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        refuse_typed(given)
        return _run([*given])
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        from vambrace.cli.usage import usage_error

        known = {each.name for each in (*app.registered_commands, *app.registered_groups)}
        return _refused(usage_error(error, " ".join(["vambrace", *(word for word in given[:1] if word in known)])))
    except (click.Abort, KeyboardInterrupt):
        say("interrupted")
        return 130
    except VambraceError as error:
        return _refused(error)
    except MemoryError:
        return _refused(_out_of_memory())
    except ImportError as error:
        # A broken or missing package of somebody else; ours are a bug like any other.
        missing = (error.name or "a package").partition(".")[0]
        return _bug(error) if missing == "vambrace" else _refused(_not_importable(missing, error))
    except Exception as error:  # noqa: BLE001  the last line of defence: a bug must end as exit 70 with its traceback
        return _bug(error)


def _run(given: list[str]) -> int:
    # The parser's own `main` answers a closed pipe with exit 1, whatever the command found.
    command = typer.main.get_command(app)
    with command.make_context("vambrace", given or ["--help"]) as context:
        outcome = command.invoke(context)
    return outcome if isinstance(outcome, int) else 0


def _refused(error: VambraceError) -> int:
    say_error(error)
    return error.exit_code


def _out_of_memory() -> ResourceError:
    return ResourceError(
        "E581",
        seen="memory ran out before the run began",
        expected="memory for the model and the data",
        fix="take part of the data with --limit, or give the run more memory",
    )


def _not_importable(name: str, error: ImportError) -> ConfigError:
    return ConfigError(
        "E583",
        seen=f"{name} cannot be imported: {error}",
        expected="a complete installation",
        fix="vambrace doctor",
    )


def _bug(error: Exception) -> int:
    import traceback

    say_as_is("".join(traceback.format_exception(error)))
    say(f"E900 a bug in vambrace {__version__}: please report the lines above (vambrace explain E900)")
    return 70


if __name__ == "__main__":
    sys.exit(main())

"""`vambrace demo`: the main job on an embedded default."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from vambrace.cli.assessing import announcer, show
from vambrace.cli.bar import listening
from vambrace.cli.speaking import say

__all__ = ["demo"]

_COMPLETED = frozenset({0, 1, 5})  # whatever the verdict, everything was measured that could be


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder that receives the run, as `demo` (default: runs).", show_default=False)
    ] = Path("runs"),
) -> None:
    """Train a small network on real handwritten digits, assess it, and show where to look. Offline, about a minute.

    Exits 0 when the run itself completed; the exit code that `assess` would have given is printed.
    """
    from vambrace.assess.demo import PLAN, demonstrate

    say("training a small network on scikit-learn's digits, then assessing it as `vambrace assess` would")
    with listening() as progress:
        report = demonstrate(out, announce=announcer(progress), progress=progress)
    show(report)
    if report.exit_code not in _COMPLETED:
        raise typer.Exit(report.exit_code)
    say("")
    say(f"`vambrace assess` would have exited with {report.exit_code}; the demo exits 0, because its run completed.")
    if (page := report.path / "report.html") in report.written:
        say(f"Look at {page}")
    say(f"Change the plan and run it: vambrace assess {shlex.quote(str(out / PLAN))}")

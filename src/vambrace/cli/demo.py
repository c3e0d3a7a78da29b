"""`vambrace demo`: the main job on an embedded default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vambrace.cli.assessing import show
from vambrace.cli.speaking import progress, say

__all__ = ["demo"]


def demo(
    out: Annotated[Path, typer.Option(help="Folder that receives the run, as `demo`.")] = Path("runs"),
) -> None:
    """Train a small network on real handwritten digits, assess it, and show where to look. Offline, about a minute.

    Exits 0 when the run itself completed; the exit code that `assess` would have given is printed.
    """
    from vambrace.assess.demo import demonstrate

    say("training a small network on scikit-learn's digits, then assessing it as `vambrace assess` would")
    report = demonstrate(out, progress=progress())
    show(report)
    say(f"look at {report.path / 'report.html'}")
    say(f"assess would have exited with {report.exit_code}; the demo exits 0 because the run completed")

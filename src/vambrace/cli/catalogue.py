"""`vambrace list`, `explain` and `doctor`: what there is, what it means, and whether this machine is fit."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from vambrace.cli.speaking import say, tell
from vambrace.errors import ConfigError

__all__ = ["Group", "doctor", "explain", "listing"]


class Group(StrEnum):
    """What `vambrace list` can list."""

    ATTACKS = "attacks"
    PERTURBATIONS = "perturbations"
    CHECKS = "checks"


def listing(
    group: Annotated[Group | None, typer.Argument(metavar="[GROUP]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable, on stdout.")] = False,
) -> None:
    """List attacks, perturbations and checks, built-in and from plug-ins.

    GROUP is attacks, perturbations or checks; all of them when left out.
    """
    from vambrace.core import registry

    groups = [group] if group else [*Group]
    table = {
        each.value: {name: registry.describe(f"vambrace.{each}", name) for name in registry.names(f"vambrace.{each}")}
        for each in groups
    }
    if as_json:
        tell(json.dumps(table, indent=2, ensure_ascii=False))
        return
    for name, entries in table.items():
        tell(name)
        width = max((len(entry) for entry in entries), default=0)
        for entry, text in entries.items():
            tell(f"  {entry:<{width}}  {text}")


def explain(
    code: Annotated[str | None, typer.Argument(metavar="[CODE]")] = None,
) -> None:
    """Say what a code means, why it happens and what to do.

    CODE is what an error or a flag begins with, such as E201; all titles when left out.
    """
    from vambrace import explain as book

    if code is None:
        for known, title in book.codes().items():
            tell(f"{known}  {title}")
        return
    text = book.page(code)
    if text is None:
        # A code of another number means something else: only the spelling of the number is guessed.
        digits = "".join(filter(str.isdigit, code.upper().translate(str.maketrans("LIO", "110"))))
        close = [known for known in book.codes() if known[1:] == digits]
        raise ConfigError(
            "E570",
            seen=f"the code {code!r}",
            expected="a code that vambrace prints",
            fix=f"vambrace explain {close[0]}" if close else "vambrace explain, without a code, lists all of them",
        )
    tell(text)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable, on stdout.")] = False,
) -> None:
    """Check versions, devices and known-bad combinations; exits 6 when something must be changed."""
    from vambrace.assess.diagnosis import diagnose

    found = diagnose()
    if as_json:
        tell(json.dumps(found.as_json(), indent=2))
    else:
        for line in found.lines():
            tell(line)
    if found.problems:
        say(f"{len(found.problems)} problem{'' if len(found.problems) == 1 else 's'} to mend")
        raise typer.Exit(6)

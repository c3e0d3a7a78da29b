"""What `vambrace obfuscate` says about a model that was made: its passes, and what was left out."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from vambrace.cli.speaking import say, tell
from vambrace.errors import ArtifactRefused, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vambrace.assets.obfuscate.pipeline import Obfuscated
    from vambrace.assets.obfuscate.record import ObfuscationMap

__all__ = ["tell_left_out", "tell_passes", "tell_table", "tell_untraceable"]


def tell_left_out(made: Obfuscated) -> None:
    """Name passes that were not done."""
    if made.fitted is not None and made.fitted.left_out:
        moved = ", ".join(f"{each.name} by {each.moved}" for each in made.fitted.left_out)
        say(f"left out, since answers move too far: {moved}")
    if made.planned is not None and made.planned.dropped:
        alone = made.planned.alone
        slow = ", ".join(f"{name} ({alone[name]:.2f} by itself)" for name in made.planned.dropped)
        say(f"left out for the budget of {made.planned.budget:g}, by what this machine takes now: {slow}")


def tell_passes(done: ObfuscationMap) -> None:
    """A table of what each pass did, and why not more."""
    rows = [
        (
            entry.name,
            f"{entry.done} of {entry.eligible}",
            "; ".join(f"{count} {why}" for why, count in entry.left.items()),
        )
        for entry in done.passes
    ]
    tell_table(("pass", "places", "left, and why"), rows)


def tell_untraceable(made: Obfuscated) -> None:
    """Whether even this copy itself, unchanged or simplified, would name nobody."""
    from vambrace.assets.obfuscate.measure.runtime import optimised
    from vambrace.assets.obfuscate.tracing import SURE, trace

    if not any(entry.marks for entry in made.map.passes):
        say("nothing in this copy can be traced: no pass found a place for a mark in this network")
    elif trace(made.model, [made.map])[0].log10_chance > SURE:
        say("this copy cannot be traced: its marks are so few that those of another one may be the same by chance")
    else:
        with contextlib.suppress(ArtifactRefused, MissingExtra):  # nothing here runs it, and so nothing simplifies it
            if trace(optimised(made.model, "basic"), [made.map])[0].log10_chance > SURE:
                say(
                    "this copy can be traced as it is and not once it was simplified: its marks lie between layers of "
                    "which a simplifier makes one, such as a convolution and its batch normalisation"
                )


def tell_table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Rows under heads; the last column is as wide as it needs to be."""
    from vambrace.report.text import on_a_line

    shown = [heads, *(tuple(on_a_line(cell, 400) for cell in row) for row in rows)]
    widths = [max(len(row[at]) for row in shown) for at in range(len(heads) - 1)]
    for row in shown:
        tell("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip())

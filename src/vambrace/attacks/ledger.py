"""The ledger of an ensemble for people: what each attack was run on, broke and cost, and what was left unspent.

print(ledger(Adaptive(eps=8/255)(model, inputs, labels)))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vambrace.core.findings import Cost
    from vambrace.search.outcome import Attacked

__all__ = ["ledger"]

_HEADS = ("attack", "attacked", "broken", "forwards", "backwards", "verifications")

_STOPPED = {
    "broken": "stopped: no sample is left",
    "patience": "stopped: nothing more is expected",
    "budget": "stopped: budget spent, something was left out",
}


def ledger(outcome: Attacked) -> str:
    """A table in plain text, a line a part and one for all; a single attack has only the last one.

    Args:
        outcome: of any attack.
    """
    count, broken = len(outcome.success), int(outcome.success.sum())
    rows = [_row(part.name, part.attacked, part.broken, part.cost) for part in outcome.parts]
    rows.append(_row("all", count, broken, outcome.cost))
    widths = [max(len(row[place]) for row in (_HEADS, *rows)) for place in range(len(_HEADS))]
    lines = [
        "  ".join(text.ljust(width) if place == 0 else text.rjust(width) for place, (text, width) in enumerate(cells))
        for cells in (list(zip(row, widths, strict=True)) for row in (_HEADS, *rows))
    ]
    if count:
        spent = outcome.cost.forwards + outcome.cost.backwards + outcome.cost.verifications
        lines.append(f"{spent / count:,.1f} rows an input")
    if outcome.allowance is not None and outcome.unspent is not None:
        lines[-1] += f"; {outcome.unspent:,} of {outcome.allowance:,} allowed rows left unspent"
    if outcome.stopped:
        lines.append(_STOPPED[outcome.stopped])
    return "\n".join(lines)


def _row(name: str, attacked: int, broken: int, cost: Cost) -> tuple[str, ...]:
    numbers = (attacked, broken, cost.forwards, cost.backwards, cost.verifications)
    return (name, *(f"{number:,}" for number in numbers))

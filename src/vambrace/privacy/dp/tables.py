"""The dry-run table of a private training, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vambrace.privacy.dp.engine.engine import Row

__all__ = ["lines"]

_HEAD = ("parameter", "elements", "used by", "method", "why")


def lines(rows: Iterable[Row]) -> list[str]:
    """A head and one line for every parameter, in columns; numbers to the right.

    >>> from vambrace.privacy.dp.engine.engine import Row
    >>> print(*lines([Row("0.weight", 1024, ("linear",), "ghost", "cheap")]), sep="|")
    parameter  elements  used by  method  why|0.weight      1,024  linear   ghost   cheap
    """
    cells = [_HEAD, *((row.name, f"{row.size:,}", ", ".join(row.uses) or "-", row.method, row.why) for row in rows)]
    widths = [max(len(each[column]) for each in cells) for column in range(len(_HEAD))]
    return [
        "  ".join(
            text.rjust(width) if column == 1 else text.ljust(width)
            for column, (text, width) in enumerate(zip(each, widths, strict=True))
        ).rstrip()
        for each in cells
    ]

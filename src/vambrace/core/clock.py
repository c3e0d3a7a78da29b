"""The time of day, for what stands beside the results and never in them.

>>> len(now()), len(stamp())
(20, 16)
"""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["now", "stamp"]


def now() -> str:
    """UTC to the second, such as "2026-04-02T18:15:30Z"."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def stamp() -> str:
    """The same for file names, such as "20260402T181530Z"."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")

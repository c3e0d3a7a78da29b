"""Flags: what changes how numbers must be read, each once, with the checks it concerns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vambrace.core.findings import Finding

__all__ = ["FlagRow", "flags"]


@dataclass(frozen=True, slots=True)
class FlagRow:
    """One flag."""

    code: str
    level: Literal["unreliable", "warn"]
    text: str
    checks: tuple[str, ...]


def flags(findings: Sequence[Finding]) -> list[FlagRow]:
    """Every flag once, the unreliable ones first."""
    found: dict[tuple[str, Literal["unreliable", "warn"], str], dict[str, None]] = {}
    for finding in findings:
        for flag in finding.flags:
            found.setdefault((flag.code, flag.level, flag.text), {})[finding.check] = None
    rows = [FlagRow(code, level, text, tuple(checks)) for (code, level, text), checks in found.items()]
    return sorted(rows, key=lambda row: row.level != "unreliable")

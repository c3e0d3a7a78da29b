"""The bar of branch coverage in the areas that everything else stands on: `make coverage` ends with this.

    python tests/branches.py build/coverage.json

An area holds when 90 % of its branches were taken. None of its files may hide behind the others: each needs 90 % of its
lines and branches together, which is the figure that `coverage report` prints. A pattern that matches nothing fails as
well, or a file that is renamed would leave the bar with it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

BAR = 90.0
_LOADED = ("load", "formats", "safetensors", "checkpoint", "pickles", "state", "executable", "factory")
_WIRED = ("onnx", "external", "wire", "weights")
AREAS: dict[str, tuple[str, ...]] = {
    "loader": (*(f"models/{name}.py" for name in (*_LOADED, *_WIRED)), "data/*.py"),
    "journal": ("assess/journal.py", "assess/rundir.py", "core/lock.py", "core/files.py"),
    "gates": ("assess/gates.py", "assess/shipped.py", "assess/verdict.py"),
    "search": ("search/*.py",),
}
"""Area to patterns below src/vambrace."""


def shortfalls(files: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """One line an area, and what keeps an area from holding.

    Args:
        files: summaries by path, as in the "files" of coverage's JSON report.
    """
    lines: list[str] = []
    short: list[str] = []
    for area, patterns in AREAS.items():
        own: dict[str, Mapping[str, Any]] = {}
        for pattern in patterns:
            found = {path: files[path]["summary"] for path in files if _below(path, pattern)}
            own |= found
            if not found:
                short.append(f"{area}: nothing was measured that matches {pattern}")
        taken = sum(summary["covered_branches"] for summary in own.values())
        total = sum(summary["num_branches"] for summary in own.values())
        share = 100.0 * taken / total if total else 0.0
        lines.append(f"{area:<8} {share:5.1f} %  {taken} of {total} branches in {len(own)} files")
        if share < BAR:
            short.append(f"{area}: {share:.1f} % of its branches; the bar is {BAR:g} %")
        short += [
            f"{area}: {path} at {summary['percent_covered']:.1f} %; the bar is {BAR:g} %"
            for path, summary in sorted(own.items())
            if summary["percent_covered"] < BAR
        ]
    return lines, short


def _below(path: str, pattern: str) -> bool:
    return fnmatchcase(path.replace("\\", "/"), f"*src/vambrace/{pattern}")


def main(report: str) -> int:
    """Print the areas; 1 where one falls short."""
    measured = json.loads(Path(report).read_text(encoding="utf-8"))
    lines, short = shortfalls(measured["files"])
    print("\n".join(["branch coverage", *lines, *short]))
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

"""The run in a terminal: verdict, scorecard, gates, what was left out, where to look. Nothing is printed here.

Status is a word first and a colour second, so the text reads the same without colour, in a log or aloud.
Everything that a stranger wrote goes through `visible`: no escape sequence of theirs reaches the terminal.
"""

from __future__ import annotations

import shlex
import textwrap
import unicodedata
from typing import TYPE_CHECKING

from vambrace.core.findings import Status
from vambrace.report.selection import by_family, headlines, reasons
from vambrace.report.text import interval_text, shorten, visible
from vambrace.report.words import STATUSES, VERDICTS, exit_meaning, family_title, metric_label, shown_value

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from vambrace.core.findings import Finding, GateResult, Results
    from vambrace.report.words import Look

__all__ = ["summary"]

_NARROWEST = 40
_COLOURS: dict[Look, str] = {
    "pass": "32",
    "fail": "31",
    "warn": "33",
    "measured": "0",
    "missing": "33",
    "unreliable": "35",
    "error": "31",
}
_MOST_ROWS = 16  # of one family; the rest is counted
_LEAST_LABEL = 26  # columns; below that a row becomes two lines


def summary(
    results: Results, *, width: int = 100, colour: bool = False, run: str = "", written: Collection[str] = ()
) -> str:
    """The run as lines of at most `width` columns (40 at least), without a final newline.

    Paths and commands to copy are not broken, however long.

    Args:
        results: what the run found.
        width: columns of the terminal.
        colour: whether ANSI colours are wanted.
        run: the run directory as the user would type it.
        written: names of the files in it that this run has written; only they are pointed at.
    """
    page = _Page(max(width, _NARROWEST), colour)
    verdict = results.verdict
    page.line(verdict.word, look=VERDICTS.get(verdict.word, "measured"), bold=True)
    for sentence in verdict.sentences:
        page.text(sentence)
    for family, findings in by_family(results.findings):
        page.gap()
        page.line(family_title(family), bold=True)
        _rows(page, findings)
    if results.gates:
        page.gap()
        page.line("Gates", bold=True)
        for gate in results.gates:
            _gate(page, gate)
    if results.left_out:
        page.gap()
        page.line("Not tested", bold=True)
        for left in results.left_out:
            page.text(f"{left.name}: {left.reason}", first="  ", rest="    ")
    page.gap()
    _pointers(page, results, run.rstrip("/"), written)
    meaning = exit_meaning(verdict) or "see vambrace explain"
    page.text(f"exit code {verdict.exit_code}: {meaning}", rest="  ")
    return "\n".join(page.lines)


class _Page:
    """Lines that exceed the width only where they are to be copied, with colour put on after the layout is known."""

    def __init__(self, width: int, colour: bool) -> None:
        self.width = width
        self.colour = colour
        self.lines: list[str] = []

    def paint(self, text: str, look: Look | None = None, *, bold: bool = False) -> str:
        codes = ([_COLOURS[look]] if look and look != "measured" else []) + (["1"] if bold else [])
        return f"\033[{';'.join(codes)}m{text}\033[0m" if self.colour and codes else text

    def line(self, text: str, *, look: Look | None = None, bold: bool = False) -> None:
        self.lines.append(self.paint(_fit(visible(text), self.width), look, bold=bold))

    def text(self, text: str, first: str = "", rest: str = "") -> None:
        folded = _folded(text, self.width - max(len(first), len(rest)))
        self.lines += [f"{rest if number else first}{line}" for number, line in enumerate(folded)]

    def whole(self, text: str) -> None:
        """A path or a command, for people to copy: the terminal may break it, a line end would stay in the copy."""
        self.lines.append("".join("\ufffd" if char.isspace() and char != " " else char for char in visible(text)))

    def gap(self) -> None:
        self.lines.append("")


def _rows(page: _Page, findings: Sequence[Finding]) -> None:
    kept = headlines(findings)
    shown = kept[:_MOST_ROWS]
    rows = [_cells(finding) for finding in shown]
    statuses = [STATUSES[finding.status] for finding in shown]
    value, interval, n = (max((_wide(row[i]) for row in rows), default=0) for i in (1, 2, 3))
    word = max((len(text) for _, text in statuses), default=0)
    label = page.width - (word + value + interval + n + 10)
    for row, (look, text) in zip(rows, statuses, strict=True):
        mark = page.paint(f"{text:<{word}}", look)
        if label >= _LEAST_LABEL:
            cells = [_pad(_fit(row[0], label), label), _pad(row[1], value, left=True), _pad(row[2], interval)]
            page.lines.append("  ".join(("", mark, *cells, _pad(row[3], n, left=True))))
        else:
            page.text(row[0], first="  ", rest="    ")
            numbers = "  ".join(part for part in row[1:] if part)
            if len(text) + 6 + _wide(numbers) <= page.width:
                page.lines.append(f"    {page.paint(text, look)}  {numbers}")
            else:
                page.lines.append(f"    {page.paint(text, look)}")
                page.text(numbers, first="    ", rest="    ")
    if more := len(findings) - len(shown):
        page.text(f"{more} more number{'s' if more > 1 else ''} in the report", first="  ", rest="  ")
    for reason, concerned in reasons(findings)[:_MOST_ROWS]:
        page.text(f"{_concerned(concerned)}: {reason}", first="  - ", rest="    ")


def _concerned(findings: Sequence[Finding]) -> str:
    more = f" and {len(findings) - 1} more" if len(findings) > 1 else ""
    return f"{findings[0].check}: {metric_label(findings[0])}{more}"


def _cells(finding: Finding) -> tuple[str, str, str, str]:
    label = f"{metric_label(finding)} ({finding.check})" if finding.check != finding.family else metric_label(finding)
    value = _one_line(shown_value(finding), 40)
    return _one_line(label, 400), f"({value})" if finding.status is Status.UNRELIABLE else value, *_beside(finding)


def _one_line(text: str, limit: int) -> str:
    """Text of a table's cell: a line break of a stranger would forge a row."""
    return " ".join(visible(text, limit).split())


def _beside(finding: Finding) -> tuple[str, str]:
    return interval_text(finding), f"n={finding.n:,}"


def _gate(page: _Page, gate: GateResult) -> None:
    look, word = STATUSES[gate.status]
    need = "" if gate.required else " (optional)"
    mark = page.paint(f"{word:<12}", look)
    folded = _folded(gate.sentence + need, page.width - 16)
    page.lines += [f"  {' ' * 12 if number else mark}  {line}" for number, line in enumerate(folded)]


def _pointers(page: _Page, results: Results, run: str, written: Collection[str]) -> None:
    if "report.html" in written:
        page.whole(f"report   {run}/report.html")
    if "results.json" in written:
        if "report.html" not in written:
            page.whole(f"results  {run}/results.json")
            page.whole(f"report   vambrace report {shlex.quote(run)}  (not written yet)")
        shown = next((item.finding for finding in results.findings for item in finding.evidence), None)
        if shown:
            page.whole(f"replay   vambrace replay {shlex.quote(run)} {shlex.quote(shown)}")
    codes = sorted({flag.code for finding in results.findings for flag in finding.flags})
    if codes:
        page.text(f"explain  vambrace explain {codes[0]}" + (f"  (also {', '.join(codes[1:])})" if codes[1:] else ""))


def _wide(text: str) -> int:
    """Columns of a terminal: East Asian wide characters take two, combining marks none."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def _fit(text: str, width: int) -> str:
    room = width
    line = shorten(text, room)
    while _wide(line) > width and room > 1:
        room -= 1
        line = shorten(text, room)
    return line


def _pad(text: str, width: int, *, left: bool = False) -> str:
    space = " " * (width - _wide(text))
    return space + text if left else text + space


def _folded(text: str, width: int) -> list[str]:
    return [piece for line in _wrapped(text, width) or [""] for piece in _columns(line, width)]


def _wrapped(text: str, width: int) -> list[str]:
    # Names of checks hold hyphens, and half a name is none.
    return textwrap.wrap(visible(text), width, break_on_hyphens=False)


def _columns(line: str, width: int) -> list[str]:
    """A line that counts characters, cut again where wide characters make it too wide."""
    pieces: list[str] = []
    current = ""
    for char in line:
        if _wide(current + char) > width:
            pieces.append(current)
            current = ""
        current += char
    return [*pieces, current]

"""How the command line speaks: data on stdout, everything else on stderr; colour only for a terminal that wants it."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, TextIO

import typer

if TYPE_CHECKING:
    from vambrace.core.progress import Progress
    from vambrace.errors import VambraceError

__all__ = ["Bar", "progress", "say", "say_error", "wants_colour"]


def say(text: str) -> None:
    """One line for people, on stderr."""
    typer.echo(text, err=True)


def say_error(error: VambraceError) -> None:
    """The whole error: code, seen, expected, fix, and where to read more."""
    bold, plain = ("\033[1m", "\033[0m") if wants_colour(sys.stderr) else ("", "")
    say(f"{bold}{error.code}{plain} {error.seen}")
    say(f"     expected {error.expected}")
    say(f"     fix      {error.fix}")
    say(f"     more     vambrace explain {error.code}")


def wants_colour(stream: TextIO) -> bool:
    """Colour only on a terminal, and never when NO_COLOR is set to anything (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def progress(budget: float | None = None) -> Progress:
    """A bar on a terminal; on anything else silence, so that logs hold results and not frames."""
    from vambrace.core.progress import silent

    return Bar(sys.stderr, budget) if sys.stderr.isatty() else silent


class Bar:
    """One line that is rewritten in place: what runs, how far, time left, budget left.

    Args:
        stream: a terminal.
        budget: wall seconds the whole run may take, or None.
    """

    def __init__(self, stream: TextIO, budget: float | None = None) -> None:
        self._stream = stream
        self._budget = budget
        self._began = time.monotonic()
        self._work: dict[str, tuple[int, int, float]] = {}

    def start(self, name: str, total: int) -> None:
        """A piece of work begins."""
        self._work[name] = (0, total, time.monotonic())
        self._draw(name, "")

    def advance(self, name: str, steps: int = 1, note: str = "") -> None:
        """Some of it is done."""
        done, total, began = self._work.get(name, (0, 0, time.monotonic()))
        self._work[name] = (done + steps, total, began)
        self._draw(name, note)

    def finish(self, name: str, note: str = "") -> None:
        """It ended; its line stays."""
        done, total, began = self._work.pop(name, (0, 0, time.monotonic()))
        took = time.monotonic() - began
        self._stream.write(f"\r\033[2K{name:<12} {done}/{total} in {took:.1f} s {note}\n")
        self._stream.flush()

    def _draw(self, name: str, note: str) -> None:
        done, total, began = self._work[name]
        now = time.monotonic()
        filled = 24 * done // total if total else 0
        parts = [f"{name:<12} {'#' * filled}{'-' * (24 - filled)} {done}/{total}"]
        if done:
            parts.append(f"{_clock((now - began) / done * (total - done))} left")
        if self._budget is not None:
            parts.append(f"budget {_clock(self._budget - (now - self._began))}")
        parts.append(note)
        width = os.get_terminal_size(self._stream.fileno()).columns if self._stream.isatty() else 100
        self._stream.write("\r\033[2K" + "  ".join(part for part in parts if part)[: width - 1])
        self._stream.flush()


def _clock(seconds: float) -> str:
    whole = max(0, round(seconds))
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"

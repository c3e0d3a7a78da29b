"""A progress bar for terminals: what runs, how far, time left, budget left; one line, rewritten in place.

A thread redraws it twice a second, so that the times go on while a long unit runs. Pieces of work may lie inside each
other; the innermost is shown, and the outermost leaves one line behind when it ends.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from vambrace.cli.speaking import columns, is_terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from vambrace.core.progress import Progress

__all__ = ["Bar", "listening"]

_CELLS = 20
_OFTEN = 0.05  # seconds between two drawings that steps ask for
_TICK = 0.5
_BUDGETED = "units"  # the work that a run's budget counts for
_ENDINGS = frozenset({"budget", "stopped", "interrupted"})
_LEAST = 0.05  # seconds of any check
_TRUST = 0.05  # share of all the work that the guess weighs like work done
_BEFORE = "already done"  # how the engine marks steps that an earlier start has done


@contextlib.contextmanager
def listening(budget: float | None = None) -> Generator[Progress]:
    """A bar while stderr is a terminal; on anything else silence, so that logs hold results and not frames.

    Args:
        budget: wall seconds that units may take, or None.
    """
    from vambrace.core.progress import silent

    if not is_terminal(sys.stderr) or os.environ.get("TERM") == "dumb":
        yield silent
        return
    bar = Bar(sys.stderr, budget)
    try:
        yield bar
    finally:
        bar.close()


@dataclass(slots=True)
class _Work:
    name: str
    total: int
    began: float
    done: int = 0
    note: str = ""
    weight: float = 0.0  # of what was done now
    left: float | None = None  # weight of what is to be done; None: steps count alike
    moved: float = 0.0  # seconds from the beginning to the last step


@dataclass(slots=True, eq=False)
class Bar:
    """One line that is rewritten in place.

    Attributes:
        stream: a terminal.
        budget: wall seconds that units may take, or None.
        clock: monotonic seconds.
    """

    stream: TextIO
    budget: float | None = None
    clock: Callable[[], float] = time.monotonic
    _expected: dict[str, float] = field(default_factory=dict[str, float])
    _all: float = 0.0
    _open: list[_Work] = field(default_factory=list[_Work])
    _drawn: float = float("-inf")
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def expect(self, seconds: Mapping[str, float], units: Mapping[str, int]) -> None:
        """Take a guess at how long units will take, before they start.

        Args:
            seconds: check id to wall seconds of all its units.
            units: check id to how many units that is.
        """
        with self._lock:
            self._expected = {name: max(spent, _LEAST) / max(1, units[name]) for name, spent in seconds.items()}
            self._all = sum(self._expected[name] * units[name] for name in seconds)

    def start(self, name: str, total: int) -> None:
        """A piece of work begins, inside those that are open."""
        with self._lock:
            known = name == _BUDGETED and self._all > 0
            self._open.append(_Work(name, total, self.clock(), left=self._all if known else None))
            self._draw()
        if self._thread is None:
            self._thread = threading.Thread(target=self._tick, name="vambrace-bar", daemon=True)
            self._thread.start()

    def advance(self, name: str, steps: int = 1, note: str = "") -> None:
        """Some of it is done."""
        with self._lock:
            if (work := self._find(name)) is None:
                return
            work.done += steps
            work.note = note
            weight = steps * (1.0 if work.left is None else self._expected.get(note, 0.0))
            if note != _BEFORE:
                work.weight += weight
                work.moved = self.clock() - work.began
            if work.left is not None:
                work.left = max(0.0, work.left - weight)
            if self.clock() - self._drawn >= _OFTEN or 0 < work.total <= work.done:
                self._draw()

    def finish(self, name: str, note: str = "") -> None:
        """It ended. The outermost piece leaves a line behind, if it had steps or took its time."""
        with self._lock:
            if (work := self._find(name)) is None:
                return
            del self._open[self._open.index(work) :]
            spent = self.clock() - work.began
            if self._open:
                self._draw()
            elif work.name == _BUDGETED or spent >= 1:
                steps = f"{work.done}/{work.total} " if work.name == _BUDGETED else ""
                # What preflight found is said by the command, in full.
                self._put(f"{work.name:<12} {steps}in {_clock(spent)}{f'  {note}' if note in _ENDINGS else ''}\n")
            else:
                self._put("")

    def close(self) -> None:
        """Stop redrawing, and leave a clean line."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            if self._open:
                self._open.clear()
                self._put("")

    def line(self) -> str:
        """What the bar says now, without regard to width; of work whose total is not known (0), not how far it is."""
        if not self._open:
            return ""
        work, now = self._open[-1], self.clock()
        parts = [f"{work.name:<12}"]
        if work.total:
            filled = min(_CELLS, _CELLS * work.done // work.total)
            parts = [f"{parts[0]} {'#' * filled}{'-' * (_CELLS - filled)} {work.done}/{work.total}"]
        spent = now - work.began
        left = _left(work, spent)
        parts.append(f"{_clock(spent)} so far" if left is None else f"{_clock(left)} left")
        if self.budget is not None and work.name == _BUDGETED:
            parts.append(f"budget {_clock(self.budget - spent)} left")
        return "  ".join([*parts, work.note if work.note == _BEFORE else f"{work.note} done"] if work.note else parts)

    def _find(self, name: str) -> _Work | None:
        return next((work for work in reversed(self._open) if work.name == name), None)

    def _tick(self) -> None:
        while not self._over.wait(_TICK):
            with self._lock:
                if self._open:
                    self._draw()

    def _draw(self) -> None:
        from vambrace.report.text import visible

        self._drawn = self.clock()
        self._put(visible(self.line())[: columns(self.stream) - 1])

    def _put(self, text: str) -> None:
        # A terminal that was closed must not end a run.
        with contextlib.suppress(OSError, ValueError):
            self.stream.write(f"\r\033[2K{text}")
            self.stream.flush()


def _left(work: _Work, spent: float) -> float | None:
    """Seconds to go at the pace so far, which falls while a step runs; None where there is nothing to go by."""
    if work.left is None:
        if not work.weight or not work.total:
            return None
        pace, left = work.moved / work.weight, float(work.total - work.done)
    else:
        # The guess counts for a little at first, and for less with every unit.
        trust = _TRUST * (work.weight + work.left)
        pace, left = (work.moved + trust) / (work.weight + trust), work.left
    return max(0.0, pace * left - (spent - work.moved))


def _clock(seconds: float) -> str:
    whole = max(0, round(seconds))
    if whole >= 3600:
        return f"{whole // 3600}h{whole // 60 % 60:02d}m"
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"

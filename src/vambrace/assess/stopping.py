"""When a run must end early: its budget, SIGTERM, or Ctrl-C.

A budget and SIGTERM (a scheduler that wants the machine back) let the unit in flight finish. Ctrl-C gives it up at
once, unless something is being written; a second Ctrl-C or SIGTERM acts as if nobody listened.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["Reason", "Stop"]

Reason = Literal["", "budget", "stopped", "interrupted"]


class Stop:
    """Listens while it is entered; handlers are put back afterwards. Only the main thread hears signals.

    Args:
        budget: wall seconds from `begin_units` until no further unit begins; None: no limit.

    Attributes:
        budget: the same; may be set until `begin_units`.
    """

    def __init__(self, budget: float | None = None) -> None:
        self.budget = budget
        self._end: float | None = None
        self._signal: Reason = ""
        self._open = False
        self._before: dict[int, Any] = {}

    @property
    def reason(self) -> Reason:
        """Why no further unit may begin; "" while one may."""
        if self._signal:
            return self._signal
        return "budget" if self._end is not None and time.monotonic() >= self._end else ""

    def begin_units(self) -> None:
        """From now on the budget is spent."""
        if self.budget is not None:
            self._end = time.monotonic() + self.budget

    @contextlib.contextmanager
    def interruptible(self) -> Generator[None]:
        """Inside, a Ctrl-C raises KeyboardInterrupt; outside it waits for whoever asks for `reason`."""
        if self._signal == "interrupted":
            raise KeyboardInterrupt
        self._open = True
        try:
            yield
        finally:
            self._open = False

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._before.clear()

    def _hear(self, number: int, _frame: object) -> None:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        if number != signal.SIGINT:
            self._signal = self._signal or "stopped"
            return
        self._signal = "interrupted"
        if self._open:
            raise KeyboardInterrupt

"""Clean-up that nobody's signal cuts off half done."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["ENDING", "undisturbed"]

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU)
"""What tells a process to end: Ctrl-C, `kill`, a terminal that closes, Ctrl-\\, a limit of processor time."""


_OFTEN_IN_C = frozenset({signal.SIGQUIT, signal.SIGXCPU})
"""What others listen to in C, as `faulthandler` does; Python tells them from nobody, and would take their place."""


@contextlib.contextmanager
def undisturbed() -> Generator[None]:
    """Inside, signals of `ENDING` wait for the end; then the first of them is acted upon.

    What the process ignores stays ignored, and what others may listen to in C stays theirs; in other threads than the
    main one, where signals raise nothing, this does nothing.
    """
    came: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {each: signal.getsignal(each) for each in ENDING}
    held = {each: handler for each, handler in before.items() if _raises(each, handler)}
    try:
        for each in held:
            signal.signal(each, lambda number, _frame: came.append(number))
        yield
    finally:
        for each, handler in held.items():
            signal.signal(each, handler)
        if came:
            signal.raise_signal(came[0])


def _raises(number: signal.Signals, handler: object) -> bool:
    """Whether a signal may end the process, or raise something, where it comes."""
    return handler not in {None, signal.SIG_IGN} and not (handler == signal.SIG_DFL and number in _OFTEN_IN_C)

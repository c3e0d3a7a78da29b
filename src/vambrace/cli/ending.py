"""How commands that write plain bytes end when they are told to: without what they had written so far.

Python ends at once at SIGTERM, at SIGHUP of a terminal that closes, and at other such signals: no draft is removed
then.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

from vambrace.cli.speaking import say
from vambrace.core.cleanup import ENDING

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["tidily"]


class _Told(SystemExit):
    pass


@contextlib.contextmanager
def tidily() -> Generator[None]:
    """Inside, signals of `ENDING` clean up as Ctrl-C does; further ones, Ctrl-C included, do not cut that off.

    What the process ignores (`nohup`) or somebody else listens to stays so, and so does all in other threads than the
    main one, where Python lets nobody listen.

    Raises:
        SystemExit: with 128 and the signal's number, as shells have it.
        KeyboardInterrupt: for Ctrl-C.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {each: signal.getsignal(each) for each in ENDING}
    heard = {each: own for each, own in before.items() if own in {signal.SIG_DFL, signal.default_int_handler}}

    def end(number: int, _frame: object) -> None:
        for each in heard:  # a shell and its terminal both send one: the second must not leave the rest of a folder
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt if number == signal.SIGINT else _Told(128 + number)

    try:
        for each in heard:
            signal.signal(each, end)
        yield
    except _Told:
        say("stopped")
        raise
    finally:
        for each, own in heard.items():
            signal.signal(each, own)

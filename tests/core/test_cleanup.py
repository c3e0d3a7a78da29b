"""Signals that come during a clean-up."""

import signal
import subprocess
import sys
import threading
from collections.abc import Generator

import pytest

from vambrace.core.cleanup import undisturbed


@pytest.fixture
def heard() -> Generator[list[int]]:
    """Numbers of SIGTERM and SIGHUP as they are acted upon."""
    found: list[int] = []
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    for each in before:
        signal.signal(each, lambda number, _frame: found.append(number))
    yield found
    for each, handler in before.items():
        signal.signal(each, handler)


def test_the_first_signal_is_acted_upon_at_the_end(heard: list[int]) -> None:
    with undisturbed():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
        assert heard == []
    assert heard == [signal.SIGTERM]
    signal.raise_signal(signal.SIGHUP)
    assert heard == [signal.SIGTERM, signal.SIGHUP], "listened to as before"


def test_what_is_ignored_does_not_stand_for_what_is_not(heard: list[int]) -> None:
    """Were it counted, `nohup` and a closed terminal would swallow the SIGTERM that follows."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with undisturbed():
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_nothing_is_held_back_in_another_thread(heard: list[int]) -> None:
    """Python lets no other thread listen: that it tried would be an error."""
    done: list[bool] = []

    def work() -> None:
        with undisturbed():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
    assert heard == []


def test_listeners_in_c_keep_their_place() -> None:
    """Python tells them from nobody: after a clean-up, the signal of `faulthandler` ended the process."""
    program = """
import faulthandler, os, signal, time
from vambrace.core.cleanup import undisturbed
faulthandler.register(signal.SIGQUIT)
with undisturbed():
    pass
os.kill(os.getpid(), signal.SIGQUIT)
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "alive\n")
    assert "most recent call first" in done.stderr

"""When a run must end: clocks and signals, in their order."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from vambrace.assess.stopping import Stop

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = [signal.getsignal(number) for number in NUMBERS]
    yield
    assert [signal.getsignal(number) for number in NUMBERS] == before


def send(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.01)


def test_nothing_stops_a_run_without_budget() -> None:
    with Stop() as stop:
        stop.begin_units()
        assert stop.reason == ""


def test_the_budget_counts_from_the_first_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with Stop(10.0) as stop:
        clock[0] = 200.0
        assert stop.reason == ""
        stop.begin_units()
        clock[0] = 209.9
        assert stop.reason == ""
        clock[0] = 210.0
        assert stop.reason == "budget"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_stop_interrupts_nothing(number: int) -> None:
    with Stop(0.0) as stop, stop.interruptible():
        send(number)
        assert stop.reason == "stopped"
        stop.begin_units()
        assert stop.reason == "stopped"  # the signal says more than the clock


def test_ctrl_c_raises_only_where_it_may() -> None:
    with Stop() as stop:
        with pytest.raises(KeyboardInterrupt), stop.interruptible():
            send(signal.SIGINT)
        assert stop.reason == "interrupted"
        with pytest.raises(KeyboardInterrupt), stop.interruptible():
            raise AssertionError


def test_ctrl_c_while_writing_waits_and_the_second_does_not() -> None:
    with Stop() as stop:
        send(signal.SIGINT)
        assert stop.reason == "interrupted"
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_ctrl_c_after_a_request_to_stop() -> None:
    with Stop() as stop:
        send(signal.SIGTERM)
        send(signal.SIGINT)
        assert stop.reason == "interrupted"


def test_a_second_request_acts_as_if_nobody_listened() -> None:
    with Stop():
        send(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_other_threads_hear_no_signals() -> None:
    found: list[str] = []

    def work() -> None:
        with Stop(0.0) as stop:
            stop.begin_units()
            found.append(stop.reason)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == ["budget"]

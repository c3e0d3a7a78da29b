"""What a command that is told to end does, and what it leaves to others."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from vambrace.cli.ending import tidily

BOTH = [signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def nobody_listens() -> Iterator[None]:
    before = [signal.signal(each, signal.SIG_DFL) for each in BOTH]
    yield
    for each, handler in zip(BOTH, before, strict=True):
        signal.signal(each, handler)


def deaf(_number: int, _frame: object) -> None:
    """Somebody else's listener."""


def listeners() -> list[object]:
    return [signal.getsignal(each) for each in BOTH]


@pytest.mark.parametrize("number", BOTH)
def test_a_second_one_waits_until_all_is_cleaned_up(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    """A shell and its terminal both send one, and so may a service manager: part of a folder stayed, in clear."""
    steps: list[str] = []

    @contextlib.contextmanager
    def draft() -> Generator[None]:
        try:
            yield
            steps.append("went on")
        finally:
            assert listeners() == [signal.SIG_IGN, signal.SIG_IGN]
            for each in BOTH:
                signal.raise_signal(each)
            steps.append("cleaned up")

    with pytest.raises(SystemExit) as ended, tidily(), draft():
        signal.raise_signal(number)
    assert steps == ["cleaned up"]
    assert ended.value.code == 128 + number
    assert capsys.readouterr().err == "stopped\n"
    assert listeners() == [signal.SIG_DFL, signal.SIG_DFL]


@pytest.mark.parametrize("error", [None, ValueError, SystemExit])
def test_afterwards_nobody_listens(error: type[BaseException] | None, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.nullcontext() if error is None else pytest.raises(error), tidily():
        assert not {signal.SIG_DFL, signal.SIG_IGN}.intersection(listeners())
        if error is not None:
            raise error
    assert listeners() == [signal.SIG_DFL, signal.SIG_DFL]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("number", BOTH)
@pytest.mark.parametrize("handler", [signal.SIG_IGN, deaf], ids=["ignored", "heard"])
def test_what_is_ignored_or_heard_by_somebody_else_stays_so(number: signal.Signals, handler: Any) -> None:
    """As under `nohup`; the other one is listened to, and leaves it alone too."""
    signal.signal(number, handler)
    seen: list[object] = []

    @contextlib.contextmanager
    def draft() -> Generator[None]:
        try:
            signal.raise_signal(number)
            yield
        finally:
            seen.append(signal.getsignal(number))

    (other,) = {*BOTH} - {number}
    with pytest.raises(SystemExit), tidily(), draft():
        signal.raise_signal(other)
    assert [*seen, signal.getsignal(number)] == [handler, handler]


def test_other_threads_listen_to_nothing() -> None:
    heard: list[object] = []

    def work() -> None:
        with tidily():
            heard.extend(listeners())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert heard == [signal.SIG_DFL, signal.SIG_DFL]

"""The bar by itself, with a clock of the test's own."""

from __future__ import annotations

import io
import os
import re
import sys
import threading

import pytest

from vambrace.cli import bar as module
from vambrace.cli.bar import Bar, listening
from vambrace.core.progress import silent


class Terminal(io.StringIO):
    """A stream that is a terminal of 80 columns."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> tuple[Bar, list[float], Terminal]:
    """A bar without its thread, its clock, and what it writes on."""
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((80, 24)))
    monkeypatch.setattr(threading.Thread, "start", lambda _: None)
    monkeypatch.setattr(threading.Thread, "join", lambda _: None)
    now = [100.0]
    stream = Terminal()
    return Bar(stream, None, lambda: now[0]), now, stream


def test_time_left_follows_the_pace_and_falls_while_a_step_runs(made: tuple[Bar, list[float], Terminal]) -> None:
    bar, now, _ = made
    bar.start("train", 4)
    assert "0/4  0s so far" in bar.line()
    now[0] += 10
    bar.advance("train")
    assert "1/4  30s left" in bar.line()
    now[0] += 4
    assert "1/4  26s left" in bar.line()
    now[0] += 60
    assert "1/4  0s left" in bar.line()


def test_the_budget_counts_for_units_only(made: tuple[Bar, list[float], Terminal]) -> None:
    bar, now, _ = made
    bar.budget = 90.0
    bar.start("load", 2)
    assert "budget" not in bar.line()
    bar.finish("load")
    now[0] += 50
    bar.start("units", 2)
    now[0] += 30
    assert "budget 1m00s left" in bar.line()
    now[0] += 90
    assert "budget 0s left" in bar.line()


def test_what_was_expected_weighs_units_and_gives_way_to_what_is_seen(
    made: tuple[Bar, list[float], Terminal],
) -> None:
    bar, now, _ = made
    bar.expect({"clean": 1.0, "pgd": 99.0}, {"clean": 1, "pgd": 3})
    bar.start("units", 4)
    assert "1m40s left" in bar.line()
    now[0] += 1
    bar.advance("units", 1, "clean")
    assert "1m39s left" in bar.line()  # by number of units it would be 3 s
    now[0] += 11
    bar.advance("units", 1, "pgd")
    [left] = re.findall(r"2/4  (\d+)s left", bar.line())
    assert 20 < int(left) < 33  # three times as fast as expected: two more take about 22 s
    assert "pgd done" in bar.line()


def test_steps_that_were_done_before_set_no_pace(made: tuple[Bar, list[float], Terminal]) -> None:
    bar, now, _ = made
    bar.start("units", 10)
    bar.advance("units", 8, "already done")
    assert "8/10  0s so far" in bar.line()
    now[0] += 5
    bar.advance("units", 1, "pgd")
    assert "9/10  5s left" in bar.line()


def test_inner_work_of_the_same_name_does_not_disturb_the_outer(made: tuple[Bar, list[float], Terminal]) -> None:
    bar, now, stream = made
    bar.start("load", 2)
    bar.start("load", 300)
    for _ in range(300):
        bar.advance("load")
    assert "300/300" in bar.line()
    bar.finish("load")
    assert "0/2" in bar.line()
    bar.advance("load", 2)
    now[0] += 3
    bar.finish("load")
    assert bar.line() == ""
    assert stream.getvalue().endswith("\r\033[2Kload         in 3s\n")


def test_it_is_not_redrawn_for_every_picture(made: tuple[Bar, list[float], Terminal]) -> None:
    bar, now, stream = made
    bar.start("load", 100_000)
    for _ in range(1000):
        now[0] += 0.001
        bar.advance("load")
    assert stream.getvalue().count("\r") < 30


def test_strangers_cannot_steer_the_terminal(made: tuple[Bar, list[float], Terminal]) -> None:
    bar, _, stream = made
    bar.start("load", 2)
    bar.advance("load", 2, "\x1b]0;owned\x07" + "x" * 200)
    shown = stream.getvalue()
    assert "\x1b]" not in shown
    assert all(len(part) < 80 for part in shown.split("\r\033[2K"))


def test_an_unknown_name_and_a_closed_terminal_do_no_harm(made: tuple[Bar, list[float], Terminal]) -> None:
    bar, _, stream = made
    bar.advance("nothing")
    bar.finish("nothing")
    bar.start("load", 1)
    stream.close()
    bar.advance("load")
    bar.finish("load")
    bar.close()


def test_close_clears_a_line_that_was_left_behind(made: tuple[Bar, list[float], Terminal]) -> None:
    bar, _, stream = made
    bar.start("load", 1)
    bar.close()
    assert stream.getvalue().endswith("\r\033[2K")


def test_the_thread_redraws_and_ends() -> None:
    bar = Bar(Terminal())
    module_tick = module._TICK
    try:
        module._TICK = 0.01
        bar.start("units", 3)
        [thread] = [each for each in threading.enumerate() if each.name == "vambrace-bar"]
        before = len(bar.stream.getvalue())  # type: ignore[attr-defined]
        threading.Event().wait(0.2)
        assert len(bar.stream.getvalue()) > before  # type: ignore[attr-defined]
        bar.close()
        assert not thread.is_alive()
    finally:
        module._TICK = module_tick


def test_listening_is_silent_where_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with listening(5) as progress:
        assert progress is silent
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "dumb")
    with listening(5) as progress:
        assert progress is silent
    monkeypatch.setenv("TERM", "xterm")
    with listening(5) as progress:
        assert isinstance(progress, Bar)
        assert progress.budget == 5


def test_work_without_a_known_total_tells_what_is_done(made: tuple[Bar, list[float], Terminal]) -> None:
    bar, now, stream = made
    bar.start("opening", 0)
    assert bar.line() == "opening       0s so far"
    now[0] += 3
    bar.advance("opening", 2, "2 MiB")
    assert bar.line() == "opening       3s so far  2 MiB done"
    drawn = stream.getvalue()
    now[0] += 0.01
    bar.advance("opening", 1, "3 MiB")
    assert stream.getvalue() == drawn  # not at every step
    bar.finish("opening")
    assert "opening      in 3s\n" in stream.getvalue()

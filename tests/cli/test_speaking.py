"""Data on stdout, words on stderr; whatever happens to the streams."""

from __future__ import annotations

import errno
import io
import os
import sys

import pytest

from vambrace.cli import speaking
from vambrace.cli.speaking import columns, say, say_error, say_lines, tell, wants_colour
from vambrace.errors import ConfigError, ResourceError

ERROR = ConfigError("E103", seen="eps = 9, which\x1b[2J is far", expected="a small eps", fix="make it smaller")


class Terminal(io.StringIO):
    """A stream that somebody watches."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError  # no file behind it


class Broken(io.StringIO):
    """A stream that cannot be written."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, _: str) -> int:
        raise OSError(self.number, os.strerror(self.number))

    def fileno(self) -> int:
        raise OSError


def test_an_error_says_all_four_things(capsys: pytest.CaptureFixture[str]) -> None:
    say_error(ERROR)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "E103 eps = 9, which�[2J is far",
        "     expected a small eps",
        "     fix      make it smaller",
        "     more     vambrace explain E103",
    ]


def test_on_a_terminal_lines_are_folded_and_codes_bold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream := Terminal())
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((44, 24)))
    monkeypatch.setattr(Terminal, "fileno", lambda _: 2)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    say_error(ERROR)
    say_lines(["left out     a-name-with-hyphens and a reason that is long enough to be folded"])
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("\x1b[1mE103\x1b[0m eps")
    assert all(len(line.replace("\x1b[1m", "").replace("\x1b[0m", "")) <= 44 for line in lines)
    assert lines[4:] == [
        "left out     a-name-with-hyphens and a",
        "             reason that is long enough to",
        "             be folded",
    ]


def test_off_a_terminal_lines_stay_whole(capsys: pytest.CaptureFixture[str]) -> None:
    say_lines(["x " * 200])
    assert capsys.readouterr().err == "x " * 200 + "\n"


def test_a_reader_that_left_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Broken(errno.EPIPE))
    tell("nobody listens")


@pytest.mark.parametrize("stream", [Broken(errno.ENOSPC), None], ids=["full", "closed"])
def test_data_that_cannot_be_written_is_an_error(stream: io.StringIO | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(ResourceError, match="E579"):
        tell("data")


@pytest.mark.parametrize("stream", [Broken(errno.ENOSPC), Broken(errno.EPIPE), None])
def test_words_that_cannot_be_said_end_nothing(stream: io.StringIO | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    say("nobody listens")
    say_error(ERROR)
    assert not wants_colour(stream)


def test_letters_that_the_stream_does_not_know_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    tell("L∞ été")
    assert raw.getvalue() == b"L\\u221e \\xe9t\\xe9\n"


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [({"TERM": "xterm"}, True), ({"TERM": "dumb"}, False), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True)],
)
def test_colour(environment: dict[str, str], wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wants_colour(Terminal()) is wanted
    assert not wants_colour(io.StringIO())


def test_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert columns(io.StringIO()) == 100
    assert columns(None) == 100
    monkeypatch.setenv("COLUMNS", "72")
    assert columns(io.StringIO()) == 72
    monkeypatch.setenv("COLUMNS", "3")
    assert columns(io.StringIO()) == 40
    closed = io.StringIO()
    closed.close()
    assert not speaking.is_terminal(closed)

"""What a command that is told to end does, and what it leaves to others."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from vambrace.assets import seal
from vambrace.assets.seal.folders import extract
from vambrace.cli.ending import tidily
from vambrace.core import files

OTHERS = [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU]
ALL = [signal.SIGINT, *OTHERS]


@pytest.fixture(autouse=True)
def nobody_listens() -> Iterator[None]:
    usual = [signal.default_int_handler, *[signal.SIG_DFL] * len(OTHERS)]
    before = [signal.signal(each, handler) for each, handler in zip(ALL, usual, strict=True)]
    yield
    for each, handler in zip(ALL, before, strict=True):
        signal.signal(each, handler)


def deaf(_number: int, _frame: object) -> None:
    """Somebody else's listener."""


def listeners() -> list[object]:
    return [signal.getsignal(each) for each in OTHERS]


@pytest.mark.parametrize("number", ALL)
def test_a_second_one_does_not_cut_the_clean_up_off(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    """A shell and its terminal both send one, and so may a service manager: part of a folder stayed, in clear."""
    steps: list[str] = []

    @contextlib.contextmanager
    def draft() -> Generator[None]:
        try:
            yield
            steps.append("went on")
        finally:
            for each in ALL:
                signal.raise_signal(each)
            steps.append("cleaned up")

    with pytest.raises((SystemExit, KeyboardInterrupt)) as ended, tidily(), draft():
        signal.raise_signal(number)
    assert steps == ["cleaned up"]
    assert getattr(ended.value, "code", 130) == 128 + number
    assert capsys.readouterr().err == ("" if number == signal.SIGINT else "stopped\n")
    assert listeners() == [signal.SIG_DFL] * len(OTHERS)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", ALL)
@pytest.mark.parametrize("what", ["folder", "file"])
def test_one_does_not_cut_off_what_an_error_began(
    what: str, number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is acted upon when nothing plain is left."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_bytes(b"plain")
    (tmp_path / "file").write_bytes(b"plain")
    source, key = tmp_path / "sealed", bytes(32)
    seal.save(tmp_path / what, source, recipients=[key])
    before = set(tmp_path.iterdir())

    def fail(_path: object, error: object = None) -> None:
        raise OSError(errno.ENOSPC, "full")

    unlink = os.unlink

    def slow(path: str | Path) -> None:
        signal.raise_signal(number)
        unlink(path)

    monkeypatch.setattr(files.system, "fsync", fail)
    monkeypatch.setattr(os, "unlink", slow)
    with (
        pytest.raises((SystemExit, KeyboardInterrupt)) as ended,
        tidily(),
        seal.open_sealed(source, identity=key) as opened,
    ):
        extract(opened, tmp_path / "out") if what == "folder" else files.write_file(tmp_path / "out", b"plain")
    assert getattr(ended.value, "code", 130) == 128 + number
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("fresh", [False, True])
def test_one_that_comes_with_the_rename_leaves_a_whole_file_or_none(
    fresh: bool, fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file at a new place was removed again, or an empty one stayed."""
    replace = files.system.replace

    def slow(source: Path, target: Path) -> None:
        if fails:
            signal.raise_signal(signal.SIGTERM)
            raise OSError(errno.EIO, "broken")
        replace(source, target)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(files.system, "replace", slow)
    with pytest.raises(SystemExit), tidily():
        (files.create_file if fresh else files.write_file)(tmp_path / "out", b"whole")
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == ([] if fails else [("out", b"whole")])


def test_one_that_comes_while_a_file_is_closed_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was closed twice, and stayed, in clear."""
    close, seen = os.close, list[int]()

    def slow(fd: int) -> None:
        close(fd)
        if not seen:
            seen.append(fd)
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(os, "close", slow)
    with pytest.raises(SystemExit), tidily():
        files.write_file(tmp_path / "out", b"plain")
    assert seen
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [None, ValueError, SystemExit])
def test_afterwards_nobody_listens(error: type[BaseException] | None, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.nullcontext() if error is None else pytest.raises(error), tidily():
        assert not {signal.SIG_DFL, signal.SIG_IGN}.intersection(listeners())
        if error is not None:
            raise error
    assert listeners() == [signal.SIG_DFL] * len(OTHERS)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("number", OTHERS)
@pytest.mark.parametrize("handler", [signal.SIG_IGN, deaf], ids=["ignored", "heard"])
def test_what_is_ignored_or_heard_by_somebody_else_stays_so(number: signal.Signals, handler: Any) -> None:
    """As under `nohup`; the others are listened to, and leave it alone too."""
    signal.signal(number, handler)
    seen: list[object] = []

    @contextlib.contextmanager
    def draft() -> Generator[None]:
        try:
            signal.raise_signal(number)
            yield
        finally:
            seen.append(signal.getsignal(number))

    other = next(each for each in OTHERS if each != number)
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
    assert heard == [signal.SIG_DFL] * len(OTHERS)

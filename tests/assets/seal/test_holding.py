"""One process at a time on a file itself, also when another file takes its name meanwhile."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from vambrace.assets.seal.holding import alone
from vambrace.errors import ResourceError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "a").write_bytes(b"one")
    return tmp_path / "a"


@pytest.mark.parametrize("write", [False, True])
def test_alone(path: Path, write: bool) -> None:
    with alone(path, write=write) as fd:
        assert os.read(fd, 10) == b"one"
        with pytest.raises(ResourceError, match="E600"), alone(path):
            pass
        with alone(path.parent), alone(path.parent.parent):
            pass
    with alone(path):
        pass
    assert path.read_bytes() == b"one"
    assert os.listdir(path.parent) == ["a"]


def test_a_file_that_took_the_name_meanwhile(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock that was waited for is on a file that has no name any more."""
    real = fcntl.flock

    def slow(fd: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        path.with_name("b").write_bytes(b"two")
        path.with_name("b").replace(path)
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", slow)
    with alone(path) as fd:
        assert os.read(fd, 10) == b"two"


def test_a_file_that_went_meanwhile(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: path.unlink())
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ResourceError, match="E604: ENOENT"), alone(path):
        pass
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(("write", "code"), [(False, "E604"), (True, "E601")])
def test_what_cannot_be_opened(path: Path, write: bool, code: str) -> None:
    with pytest.raises(ResourceError, match=code), alone(path.with_name("absent"), write=write):
        pass


def test_no_locks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no")

    monkeypatch.setattr(fcntl, "flock", refuse)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ResourceError, match="E603: ENOLCK"), alone(path):
        pass
    assert len(os.listdir("/proc/self/fd")) == before

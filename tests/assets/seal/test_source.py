"""Files at offsets, and streams, with all that reading can come to."""

from __future__ import annotations

import errno
import gc
import io
import os
from pathlib import Path

import pytest
import torch

from assets.seal.harness import Dribble
from vambrace.assets import seal
from vambrace.assets.seal.source import FileSource, fill
from vambrace.errors import ArtifactRefused, ResourceError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a"
    path.write_bytes(bytes(range(100)))
    return path


def test_any_part(path: Path) -> None:
    source = FileSource.open(path)
    assert source.size == 100
    assert source.read(0, 100) == bytes(range(100))
    assert source.read(7, 3) == b"\7\10\11"
    assert source.read(200, 0) == b""
    with pytest.raises(ArtifactRefused, match="E706: the end of the file at byte 100"):
        source.read(90, 11)
    source.close()
    source.close()


def test_short_reads_go_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, offset: true(fd, [buffers[0][:3]], offset))
    source = FileSource.open(path)
    assert source.read(1, 50) == bytes(range(1, 51))
    source.close()


def test_a_file_that_shrinks_is_refused(path: Path) -> None:
    source = FileSource.open(path)
    os.truncate(path, 50)
    assert source.read(0, 50) == bytes(range(50))
    with pytest.raises(ArtifactRefused, match="E706"):
        source.read(40, 20)
    source.close()


def test_what_is_no_regular_file(path: Path) -> None:
    for name in ("none", "nu\0ll"):
        with pytest.raises(FileNotFoundError, match="E776: nothing at .*expected a sealed file"):
            FileSource.open(path.with_name(name))
    os.mkfifo(pipe := path.with_name("pipe"))
    before = len(os.listdir("/proc/self/fd"))
    for other in (pipe, path.parent, Path("/dev/zero")):
        with pytest.raises(ResourceError, match="E604"):
            FileSource.open(other)
    assert len(os.listdir("/proc/self/fd")) == before


def test_errors_of_reading(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "broken")

    source = FileSource.open(path)
    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(ResourceError, match="E604: EIO reading"):
        source.read(0, 1)
    source.close()
    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(ResourceError, match="E604: EIO reading"):
        FileSource.open(path)


def test_streams_are_filled_to_their_end(path: Path) -> None:
    out = bytearray(60)
    source = FileSource.open(path)
    for stream in (source.stream(10), Dribble(bytes(range(10, 100)), 7)):
        assert fill(stream, memoryview(out)) == 60
        assert out == bytes(range(10, 70))
        assert fill(stream, memoryview(out)) == 30
        assert fill(stream, memoryview(out)) == 0
    assert fill(source.stream(101), memoryview(out)) == 0
    source.close()


def test_streams_that_fail() -> None:
    class Failing(io.RawIOBase):
        def readinto(self, buffer: memoryview) -> int | None:
            raise OSError(errno.EPIPE, "gone")

    class Waiting(io.RawIOBase):
        def readinto(self, buffer: memoryview) -> int | None:
            return None

    for stream, name in ((Failing(), "EPIPE"), (Waiting(), "EAGAIN")):
        with pytest.raises(ResourceError, match=f"E604: {name} reading the stream"):
            fill(stream, memoryview(bytearray(1)))


def test_a_file_that_was_forgotten_is_closed(tmp_path: Path) -> None:
    """As Python's own are; the descriptor stayed until the process ended."""
    seal.save({"w": torch.ones(2)}, tmp_path / "sealed", recipients=[bytes(32)])
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        assert seal.lazy(tmp_path / "sealed", identity=bytes(32))["w"].sum() == 2
        seal.open_sealed(tmp_path / "sealed", identity=bytes(32))
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == before

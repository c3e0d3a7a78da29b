"""Where a writer puts things: whole under their names, or not at all, whatever goes wrong on the way."""

from __future__ import annotations

import errno
import gc
import io
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from assets.seal.harness import CHUNK, KEY, Recorder, content, sign, streamed
from assets.seal.naive_sealed import open_naively
from vambrace.assets.seal import writer
from vambrace.assets.seal.memory import Memory
from vambrace.assets.seal.recipients import as_recipient
from vambrace.assets.seal.writer import Writer
from vambrace.core import files
from vambrace.errors import ConfigError, ResourceError

TO = [as_recipient(KEY)]


def test_a_file_is_there_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.sealed"
    path.write_bytes(b"old")
    path.chmod(0o600)
    with path.open("rb") as old, Writer(path, TO, like=old.fileno()) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert open_naively(path.read_bytes(), KEY)["content"] == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["a.sealed"]


@pytest.mark.parametrize("threads", [1, 3])
def test_nothing_is_left_of_one_that_failed(threads: int, tmp_path: Path) -> None:
    path = tmp_path / "a.sealed"

    def interrupted() -> None:
        with Writer(path, TO, threads=threads, chunk_size=CHUNK) as file:
            file.write(content(4 * CHUNK))
            raise KeyboardInterrupt

    def unsigned() -> None:
        with Writer(path, TO, sign=lambda *_: b"", threads=threads) as file:
            file.write(b"abc")

    def forgotten() -> None:
        Writer(path, TO, threads=threads).write(b"abc")
        gc.collect()

    def forgotten_at_work() -> None:
        Writer(path, TO, threads=threads, chunk_size=CHUNK).write(content(300 * CHUNK), kept=True)
        deadline = time.monotonic() + 10
        while (set(threading.enumerate()) != before or any(tmp_path.iterdir())) and time.monotonic() < deadline:
            gc.collect()
            time.sleep(0.01)

    before = set(threading.enumerate())
    works = [(interrupted, KeyboardInterrupt), (unsigned, ConfigError), (forgotten, None), (forgotten_at_work, None)]
    for work, error in works:
        if error:
            with pytest.raises(error):
                work()
        else:
            work()
        assert list(tmp_path.iterdir()) == []
        assert set(threading.enumerate()) == before


@pytest.mark.parametrize("threads", [1, 2])
def test_what_was_given_up_in_memory_is_gone(threads: int) -> None:
    place = Memory()
    file = Writer(place, TO, size=9 * CHUNK, chunk_size=CHUNK, threads=threads)
    file.write(content(5 * CHUNK), kept=True)
    file.abort()
    assert bytes(place.data) == b""


def test_a_memory_is_for_one_file(tmp_path: Path) -> None:
    place = Memory()
    place.write(memoryview(b"first"))
    with pytest.raises(ConfigError, match="E712: a Memory that holds 5 bytes"):
        Writer(place, TO)
    assert bytes(place.data) == b"first"
    place = Memory()
    left = Writer(place, TO, size=1)
    place.clear(left._keys)
    with Writer(place, TO) as file:
        file.write(b"whole")
    left.abort()  # as the collector would, whenever it likes
    assert open_naively(bytes(place.data), KEY)["content"] == b"whole"


def test_many_small_parts_take_no_more_than_their_chunk() -> None:
    sink = Recorder()
    with Writer(sink, TO, chunk_size=CHUNK) as file:
        for byte in content(3000):
            file.write(bytes([byte]), kept=True)
            assert len(file._parts) <= 257
    assert open_naively(bytes(sink.data), KEY)["content"] == content(3000)


def test_a_stream_that_stands_still_keeps_nobody_from_giving_up() -> None:
    class Stalled(Recorder):
        def write(self, data: bytes | memoryview) -> int:
            if threading.current_thread() is not threading.main_thread():
                stalled.set()
                assert gate.wait(30)
                late.append(len(data))
                return super().write(data[:1000])
            return super().write(data)

    gate, stalled, late = threading.Event(), threading.Event(), []

    def interrupted() -> None:
        with Writer(Stalled(), TO, chunk_size=CHUNK, threads=2) as file:
            file.write(content(4 * CHUNK), kept=True)
            assert stalled.wait(10)
            raise KeyboardInterrupt

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - begin < 10
    gate.set()
    for _ in range(100):
        time.sleep(0.01)
        if late:
            break
    time.sleep(0.1)
    assert len(late) == 1, "what was under way, and no more"


def test_threads_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    with pytest.raises(RuntimeError, match="start new thread"), Writer(tmp_path / "a", TO, threads=3) as file:
        file.write(content(4 * 2**20))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("threads", [1, 3])
def test_every_call_of_the_system_may_fail(threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(files.System):
        calls, at = 0, 0

        def _call(self) -> None:
            self.calls += 1
            if self.calls == self.at:
                raise OSError(errno.ENOSPC, "full")

        def write(self, fd: int, data: Any) -> int:
            self._call()
            return super().write(fd, data)

        def fsync(self, fd: int) -> None:
            self._call()
            super().fsync(fd)

        def replace(self, source: Path, target: Path) -> None:
            self._call()
            super().replace(source, target)

    path, before = tmp_path / "a", len(os.listdir("/proc/self/fd"))
    for at in range(1, 100):
        path.write_bytes(b"old")
        shim = Failing()
        shim.at = at
        monkeypatch.setattr(files, "system", shim)
        try:
            with Writer(path, TO, chunk_size=CHUNK, sign=sign, threads=threads) as file:
                file.write(content(2 * CHUNK))
        except ResourceError:
            assert path.read_bytes() == b"old" or shim.calls == 9  # the folder's own fsync
        else:
            break
        assert [each.name for each in tmp_path.iterdir()] == ["a"]
    # Header, two chunks, leaves, statement, foot, the file's fsync, its name, the folder's fsync.
    assert at == 10
    assert len(os.listdir("/proc/self/fd")) == before
    assert open_naively(path.read_bytes(), KEY)["content"] == content(2 * CHUNK)


def test_a_stream_that_takes_little_and_one_that_says_nothing() -> None:
    class Little(Recorder):
        def write(self, data: bytes | memoryview) -> int:
            return super().write(data[:1000])

    class Silent(Recorder):
        def write(self, data: bytes | memoryview) -> None:  # type: ignore[override]
            super().write(data)

    for sink in (Little(), Silent()):
        with Writer(sink, TO, chunk_size=CHUNK) as file:
            file.write(content(CHUNK + 1))
        assert open_naively(bytes(sink.data), KEY)["content"] == content(CHUNK + 1)


def test_a_stream_that_takes_no_more() -> None:
    class Full(io.RawIOBase):
        def __init__(self, answer: int | None) -> None:
            self.answer = answer
            self.room = 70_000

        def write(self, data: Any) -> int | None:
            self.room -= len(data)
            return len(data) if self.room > 0 else self.answer

    for answer in (0, None):
        with pytest.raises(BlockingIOError), Writer(Full(answer), TO, chunk_size=CHUNK) as file:
            file.write(content(2 * CHUNK))


def test_what_a_broken_writer_put_into_a_stream_is_refused() -> None:
    sink = Recorder()
    file = Writer(sink, TO, chunk_size=CHUNK)
    file.write(content(2 * CHUNK + 1))
    file.abort()
    assert streamed(bytes(sink.data)).code == "E706"


def test_too_little_memory_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(writer, "Pipeline", none_left)
    with pytest.raises(MemoryError):
        Writer(tmp_path / "a.sealed", TO, threads=2)
    gc.collect()
    assert list(tmp_path.iterdir()) == []

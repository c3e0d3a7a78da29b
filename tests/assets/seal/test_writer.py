"""Writing: whole or not at all, in any pieces, on any number of threads, and never twice under one nonce."""

from __future__ import annotations

import errno
import io
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assets.seal.harness import CHUNK, KEY, PUBLIC, Dribble, Full, Recorder, content, sign, streamed
from assets.seal.naive_sealed import Naive, open_naively, padme
from vambrace.assets.seal import writer
from vambrace.assets.seal.header import Fixed
from vambrace.assets.seal.memory import Memory
from vambrace.assets.seal.recipients import as_recipient
from vambrace.assets.seal.suites import Suite
from vambrace.assets.seal.writer import Writer
from vambrace.errors import ConfigError, ResourceError

TO = [as_recipient(KEY)]
BORDERS = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 1, 2 * CHUNK, 3 * CHUNK + 5]


def sealed(data: bytes, **options: Any) -> bytes:
    sink = Recorder()
    with Writer(sink, TO, chunk_size=CHUNK, **options) as file:
        file.write(data)
    return bytes(sink.data)


def fixed_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so can two files be compared byte by byte."""
    monkeypatch.setattr(writer, "new_file_key", lambda: b"f" * 32)
    monkeypatch.setattr(writer, "new_salt", lambda: b"s" * 32)


# What it writes.


@pytest.mark.parametrize("size", BORDERS)
@pytest.mark.parametrize("options", [{}, {"sign": sign, "pad": True}, {"suite": Suite.SM4_GCM}])
def test_the_page_reads_it(size: int, options: dict[str, Any]) -> None:
    data = content(size)
    found = open_naively(sealed(data, size=size, metadata={"a": 1}, public={"b": 2}, content="tensors", **options), KEY)
    assert found["content"] == data
    assert found["description"] == {"content": "tensors", "size": size, "metadata": {"a": 1}}
    assert (found["text"]["public"], found["text"]["epoch"]) == ({"b": 2}, 0)
    assert found["stream"] == (padme(size) if options.get("pad") else size)
    if "sign" in options:
        assert found["statement"]["name"] == "A. Smith"


@pytest.mark.parametrize("suite", Suite)
@pytest.mark.parametrize("threads", [1, 3])
def test_chunks_and_trailer_are_those_of_the_page(suite: Suite, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed_keys(monkeypatch)
    data = content(5 * CHUNK + 5)
    _, records, trailer = Naive(data, suite=suite).parts()
    assert sealed(data, size=len(data), suite=suite, threads=threads)[65_536:] == b"".join(records) + trailer


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_pieces_make_no_difference(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed_keys(monkeypatch)
    data, rng = content(9 * CHUNK + 5), random.Random(1)
    whole = sealed(data, sign=sign)[65_536:]
    for most in (1000, CHUNK, 3 * CHUNK, 20 * CHUNK):
        sink, at = Recorder(), 0
        with Writer(sink, TO, chunk_size=CHUNK, sign=sign, threads=threads) as file:
            while at < len(data):
                step = rng.randint(1, most)
                buffer = bytearray(data[at : at + step])
                assert file.write(buffer) == len(buffer)
                buffer[:] = bytes(len(buffer))  # a caller may use its buffer again
                at += step
        assert sink.data[65_536:] == whole


@pytest.mark.parametrize("suite", Suite)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_bytes_that_stay_are_not_copied_and_mix_with_others(
    suite: Suite, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed_keys(monkeypatch)
    data, rng = content(150 * CHUNK + 5), random.Random(2)
    whole = sealed(data, sign=sign, suite=suite)[65_536:]
    for most, kinds in (
        (50 * CHUNK, ["kept"]),
        (CHUNK // 3, ["kept", "write"]),
        (3 * CHUNK, ["kept", "write", "copy"]),
    ):
        sink, at = Recorder(), 0
        with Writer(sink, TO, chunk_size=CHUNK, sign=sign, suite=suite, threads=threads) as file:
            while at < len(data):
                buffer = bytearray(data[at : at + rng.randint(0, most)])
                at += len(buffer)
                kind = rng.choice(kinds)
                if kind == "copy":
                    assert file.copy_from(io.BytesIO(buffer)) == len(buffer)
                else:
                    assert file.write(buffer, kept=kind == "kept") == len(buffer)
                if kind != "kept":
                    buffer[:] = bytes(len(buffer))
        assert sink.data[65_536:] == whole


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("options", [{}, {"sign": sign}, {"pad": True, "suite": Suite.CHACHA20_POLY1305}])
def test_in_memory_it_is_the_same_file(
    options: dict[str, Any], known: bool, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of unknown size it takes several blocks, here of four chunks each."""
    if not known:
        options = {name: value for name, value in options.items() if name != "pad"}
    fixed_keys(monkeypatch)
    monkeypatch.setattr("vambrace.assets.seal.memory._BLOCK", 4 * CHUNK)
    for size in (0, 1, CHUNK, 30 * CHUNK + 5):
        data, place = content(size), Memory()
        options["size"] = size if known else None
        with Writer(place, TO, chunk_size=CHUNK, threads=threads, **options) as file:
            file.write(data[: size // 2])
            file.write(data[size // 2 :], kept=True)
        assert bytes(place.data)[65_536:] == sealed(data, **options)[65_536:]
        assert open_naively(bytes(place.data), KEY)["content"] == data
        assert len(place._blocks) == 0 or not known, "of known size it is in one place, from the beginning"


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("size", BORDERS)
def test_a_stream_is_copied(threads: int, size: int) -> None:
    data, sink = content(size), Recorder()
    with Writer(sink, TO, chunk_size=CHUNK, threads=threads) as file:
        assert file.copy_from(io.BytesIO(data)) == size
        assert file.copy_from(io.BytesIO(b"more")) == 4
    assert open_naively(bytes(sink.data), KEY)["content"] == data + b"more"
    alone, again = Recorder(), Recorder()
    with Writer(alone, TO, chunk_size=CHUNK, threads=threads) as file:
        assert file.copy_from(io.BytesIO(data)) == size
    with Writer(again, TO, chunk_size=CHUNK, threads=threads) as file:
        assert file.copy_from(Dribble(data, 777)) == size
        assert file.copy_from(io.BytesIO()) == 0
    for each in (alone, again):
        found = open_naively(bytes(each.data), KEY)
        assert (found["content"], found["chunks"]) == (data, max(1, -(-size // CHUNK)))


class Pausing(io.RawIOBase):
    """A stream that has nothing for now, or fails, after some bytes."""

    def __init__(self, size: int, error: OSError | None) -> None:
        super().__init__()
        self._left, self._error = size, error

    def readinto(self, buffer: memoryview) -> int | None:
        if not self._left and self._error:
            raise self._error
        got, self._left = min(self._left, len(buffer)), max(0, self._left - len(buffer))
        return got or None


@pytest.mark.parametrize("size", [0, 5, CHUNK, CHUNK + 5])
@pytest.mark.parametrize("error", [None, OSError(errno.EIO, "broken")])
def test_a_pause_is_no_end(size: int, error: OSError | None, tmp_path: Path) -> None:
    with (
        pytest.raises(ResourceError, match="E604: EAGAIN" if error is None else "E604: EIO"),
        Writer(tmp_path / "a", TO, chunk_size=CHUNK) as file,
    ):
        file.copy_from(Pausing(size, error))
    assert not list(tmp_path.iterdir())


def test_an_unknown_size_is_null() -> None:
    found = open_naively(sealed(b"abc"), KEY)
    assert found["description"]["size"] is None
    assert found["content"] == b"abc"


def test_any_contiguous_buffer() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    sink = Recorder()
    with Writer(sink, TO) as file:
        assert file.write(array) == 48
        assert file.write(np.empty((0, 4))) == 0
        assert file.write(memoryview(array)[:1]) == 16
        with pytest.raises(TypeError):
            file.write("text")  # type: ignore[arg-type]
    assert open_naively(bytes(sink.data), KEY)["content"] == array.tobytes() + array[:1].tobytes()


def test_the_signer_is_asked_once_about_the_whole() -> None:
    asked: list[tuple[Fixed, int, int, bytes]] = []

    def ask(*about: Any) -> bytes:
        asked.append(about)
        return sign(*about)

    data = sealed(content(2 * CHUNK + 1), sign=ask)
    ((fixed, count, stream, root),) = asked
    found = open_naively(data, KEY)
    assert (fixed.pack(), count, stream, root) == (data[:112], 3, 2 * CHUNK + 1, found["root"])
    assert streamed(data, signers=[PUBLIC]).code == ""


def test_nothing_is_used_twice() -> None:
    """Key, salt and every nonce of a file are its own."""
    headers = [sealed(b"abc")[:80] for _ in range(20)]
    assert len({header[16:48] for header in headers}) == 20
    assert len({header[48:80] for header in headers}) == 20
    same = sealed(b"x" * 3 * CHUNK)
    records = [same[65_536 + i * (CHUNK + 20) :][4:CHUNK] for i in range(3)]
    assert len(set(records)) == 3


# What it refuses.


@pytest.mark.parametrize("size", [3, CHUNK + 3])
def test_the_announced_size_is_kept(size: int, tmp_path: Path) -> None:
    for write in (size - 1, size + 1, 0):
        path = tmp_path / "a"
        with pytest.raises(ConfigError, match="E715"), Writer(path, TO, size=size, chunk_size=CHUNK) as file:
            file.write(content(write))
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(ConfigError, match="E715"), Writer(path, TO, size=size, chunk_size=CHUNK) as file:
            file.copy_from(io.BytesIO(content(write)))
        assert list(tmp_path.iterdir()) == []


def test_after_the_end_nothing_is_written() -> None:
    sink = Recorder()
    file = Writer(sink, TO)
    file.write(b"abc")
    file.finish()
    size = len(sink.data)
    for late in (lambda: file.write(b""), file.finish, lambda: file.copy_from(io.BytesIO(b"x"))):
        with pytest.raises(ConfigError, match="E715: more content for a file that is finished"):
            late()
    file.abort()
    assert len(sink.data) == size


def test_a_file_has_so_many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=f"E712: {2**48 + 1} bytes in chunks of 65536"):
        Writer(Recorder(), TO, size=2**48 + 1, chunk_size=CHUNK)
    monkeypatch.setattr(writer, "MOST_CHUNKS", 2)
    assert len(sealed(content(2 * CHUNK))) > 0
    with pytest.raises(ConfigError, match="E715"), Writer(Recorder(), TO, chunk_size=CHUNK) as file:
        file.write(content(2 * CHUNK + 1))


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"suite": 5}, "E712"),
        ({"suite": "AES"}, "E712"),
        ({"chunk_size": 1000}, "E712"),
        ({"chunk_size": 2**25}, "E712"),
        ({"threads": 0}, "E712: 0 threads; expected 1 to 256"),
        ({"threads": 257}, "E712: 257 threads; expected 1 to 256"),
        ({"threads": 99_999_999}, "E712"),
        ({"pad": True}, "E712"),
        ({"size": -1}, "E712"),
        ({"size": 2**60}, "E712"),
        ({"content": "pickle"}, "E714"),
        ({"metadata": {"a": b""}}, "E714"),
        ({"metadata": {"expires": "soon"}}, "E714"),
        ({"metadata": {"a": float("nan")}}, "E105"),
        ({"metadata": {"a": "x" * 60_000}}, "E714"),
        ({"public": {"a": {1: 2}}}, "E105"),
        ({"public": {"licence": 1}}, "E714"),
        ({"public": {"a": "x" * 65_300}}, "E714"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], code: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=code):
        Writer(tmp_path / "a", TO, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [0, 65])
def test_so_many_recipients(count: int) -> None:
    with pytest.raises(ConfigError, match=f"E712: {count} recipients"):
        Writer(Recorder(), TO * count)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="E601"):
        Writer(tmp_path / "none" / "a", TO)
    (tmp_path / "folder" / "full").mkdir(parents=True)
    with pytest.raises(ResourceError, match="E601"), Writer(tmp_path / "folder", TO) as file:
        file.write(b"abc")
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]


def test_leaves_beyond_memory_go_to_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_LEAVES_IN_MEMORY", 64)
    monkeypatch.setattr(writer, "_PIECE", 50)
    data = sealed(content(6 * CHUNK), sign=sign)
    assert open_naively(data, KEY)["statement"]
    assert streamed(data, signers=[PUBLIC]).code == ""


@pytest.mark.parametrize("threads", [1, 2])
def test_leaves_that_find_no_room(threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An OSError of Python came out."""
    monkeypatch.setattr(writer, "_LEAVES_IN_MEMORY", 64)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(ResourceError, match="E601: ENOENT"):
        sealed(content(6 * CHUNK), sign=sign, threads=threads)


@pytest.mark.parametrize("call", ["seek", "read"])
def test_leaves_that_find_no_room_at_the_end(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a buffer still held is written when they are read again."""

    def full(*_given: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, call, full)
    with pytest.raises(ResourceError, match="E601: ENOSPC"):
        sealed(content(2 * CHUNK), sign=sign)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_disk_that_is_full_when_the_buffer_of_leaves_is_written(
    threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing wrote it once more: its error came out in the place of the first, and what was sealed so far stayed."""
    monkeypatch.setattr(writer, "_LEAVES_IN_MEMORY", 64)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda *_, **__: io.BufferedRandom(Full(), 2**24))
    with (
        pytest.raises(ResourceError, match="E601: ENOSPC"),
        Writer(tmp_path / "sealed", TO, sign=sign, chunk_size=CHUNK, threads=threads) as file,
    ):
        file.write(content(6 * CHUNK))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("taken", [-1, 2**40])
def test_a_sink_that_takes_what_cannot_be(taken: int) -> None:
    """With -1 it was asked for ever."""

    class Odd:
        def write(self, data: memoryview, /) -> int:
            return taken

    with pytest.raises(OSError, match=f"took {taken} of"), Writer(Odd(), TO) as file:
        file.write(b"abc")


def test_nothing_secret_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed_keys(monkeypatch)
    sink = Recorder()
    file = Writer(sink, TO, metadata={"hidden": "words that nobody else reads"})
    shown = f"{file!r} {vars(file)!r} {file.header!r}"
    assert "f" * 32 not in shown
    assert "nobody else" not in shown
    assert b"nobody else" not in sink.data
    file.abort()

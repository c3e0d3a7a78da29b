"""Streams: every size, source and suite; the end is withheld until it is verified; nothing false, nothing unbounded."""

from __future__ import annotations

import dataclasses
import io
import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from assets.seal.harness import CHUNK, OTHER, PUBLIC, SIGNER, Dribble, Full, Recorder, content, identities, streamed
from assets.seal.naive_sealed import HEADER, Naive, padme
from vambrace.assets import seal
from vambrace.assets.seal import keys, statement
from vambrace.assets.seal.reader import Reader
from vambrace.errors import ArtifactRefused, ConfigError, ResourceError

# Padme changes a length only beyond two bytes; 2**17 + 1 is one more than a length that stays.
BORDERS = [0, 1, 2, 9, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2**17 + 1, padme(2**17 + 1), 3 * CHUNK + 5]


def reader(data: bytes | io.RawIOBase, **options: Any) -> Reader:
    return Reader(io.BytesIO(data) if isinstance(data, bytes) else data, identities(), **options)


@pytest.mark.parametrize("size", BORDERS)
@pytest.mark.parametrize("file", [{}, {"pad": True}, {"signer": SIGNER, "pad": True}, {"size": None}])
def test_round_trip(size: int, file: dict[str, Any]) -> None:
    data = Naive(content(size), **file).data()
    ways: list[dict[str, Any]] = [{}]
    if "signer" in file:
        ways += [{"signers": [PUBLIC]}, {"signers": [PUBLIC], "stream_unverified": True}, {"check_signature": True}]
    for way in ways:
        assert streamed(data, **way).out == content(size)
        assert reader(data, **way).read() == content(size)
        assert reader(Dribble(data, 999), **way).read() == content(size)
        assert b"".join(iter(partial(reader(data, **way).read, 777), b"")) == content(size)
        assert io.BufferedReader(reader(data, **way), 5000).read() == content(size)


@pytest.mark.parametrize("suite", [1, 2, 3, 4])
def test_suites(suite: int) -> None:
    assert streamed(Naive(content(CHUNK + 9), suite=suite, pad=True).data()).out == content(CHUNK + 9)


def test_a_recipient_who_holds_the_temporary_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """His chunk has the right tag, and it is not what was signed: what was verified is what comes out."""
    file = Naive(content(3 * CHUNK), signer=SIGNER)
    forged = file.record(1, False, b"M" * CHUNK)
    true = tempfile.TemporaryFile

    def held(**options: Any) -> Any:
        kept = true(**options)
        seek = kept.seek

        def rewind(at: int) -> int:
            kept.flush()
            data = os.pread(kept.fileno(), 10 * CHUNK, 0)
            at_chunk = data.index(file.records()[1])
            os.pwrite(kept.fileno(), forged, at_chunk)
            return seek(at)

        class Held:
            write, readinto = staticmethod(kept.write), staticmethod(kept.readinto)
            seek = staticmethod(rewind)

            close = staticmethod(kept.close)

        return Held()

    monkeypatch.setattr(tempfile, "TemporaryFile", held)
    found = streamed(file.data(), signers=[PUBLIC])
    assert (found.code, found.out) == ("E705", content(CHUNK))
    assert "temporary file" in found.message


def test_what_a_reader_says() -> None:
    file = Naive(b"abc", kind="tensors", metadata={"a": 1}, public={"b": 2}, signer=SIGNER)
    with reader(file.data(), signers=[OTHER.public_key().public_bytes_raw(), PUBLIC]) as found:
        assert (found.description.content, found.description.size) == ("tensors", 3)
        assert (found.description.metadata, found.header.public) == ({"a": 1}, {"b": 2})
        assert (found.signed, found.statement) == (None, None)
        assert (found.readable(), found.seekable(), found.writable()) == (True, False, False)
        assert found.readinto(bytearray()) == 0
        assert found.read(2) == b"ab"
        assert found.signed
        assert found.statement is not None
        assert found.statement.signer == PUBLIC
    plain = reader(file.data())
    plain.read()
    assert (plain.signed, plain.statement) == (True, None)  # there, and not checked
    unsigned = reader(Naive(b"abc").data(), check_signature=True)
    unsigned.read()
    assert (unsigned.signed, unsigned.statement) == (False, None)


def test_a_closed_reader(tmp_path: Path) -> None:
    found = reader(Naive(b"abc").data())
    found.close()
    found.close()
    for late in (found.read, lambda: found.read(1), lambda: found.copy_to(Recorder())):
        with pytest.raises(ValueError, match="closed"):
            late()


def exactly(found: Reader, size: int, out: bytearray) -> None:
    while len(out) < size:
        out += found.read(size - len(out))


@pytest.mark.parametrize("size", [1, CHUNK, CHUNK + 1, 2**17 + 1])
@pytest.mark.parametrize("pad", [False, True])
def test_whoever_stops_at_the_last_byte_has_been_told(size: int, pad: bool) -> None:
    """Nobody reads to the end who knows the size: what is wrong there is told before the last byte is out."""
    file = Naive(content(size), pad=pad)
    region, records, trailer = file.parts()
    whole = region + b"".join(records) + trailer
    for data in (whole[:-1], whole + b"x", whole[:-1] + bytes([whole[-1] ^ 1]), whole[: -len(trailer)]):
        out = bytearray()
        with pytest.raises(ArtifactRefused):
            exactly(reader(data), size, out)
        assert len(out) < size
        assert content(size).startswith(out)


@pytest.mark.parametrize("way", [{}, {"signers": [PUBLIC], "stream_unverified": True}])
def test_an_error_stays(way: dict[str, Any]) -> None:
    data = bytearray(Naive(content(3 * CHUNK), signer=SIGNER).data())
    data[HEADER + CHUNK + 100] ^= 1
    found = reader(bytes(data), **way)
    assert found.read(CHUNK) == content(CHUNK)
    for _ in range(3):
        for again in (lambda: found.read(1), found.readall, lambda: found.copy_to(Recorder())):
            with pytest.raises(ArtifactRefused, match="E705: chunk 1 "):
                again()


def test_the_tag_comes_first() -> None:
    """A sink sees a chunk only after the whole of it has been read and verified."""
    data, sink = Naive(content(2 * CHUNK + 9)).data(), Recorder()
    for end in range(HEADER + CHUNK, HEADER + CHUNK + 21):
        sink.data.clear()
        with pytest.raises(ArtifactRefused, match="E706"):
            reader(data[:end]).copy_to(sink)
        assert len(sink.data) == (CHUNK if end == HEADER + CHUNK + 20 else 0)


# Origin.


def test_nothing_comes_out_before_the_signature_is_verified(tmp_path: Path) -> None:
    data = Naive(content(3 * CHUNK), signer=SIGNER).data()
    sizes: list[int] = []

    class Watched(Dribble):
        def readinto(self, buffer: memoryview) -> int:
            sizes.append(len(sink.data))
            return super().readinto(buffer)

    sink = Recorder()
    reader(Watched(data), signers=[PUBLIC], spool=tmp_path).copy_to(sink)
    assert set(sizes) == {0}
    assert sink.data == content(3 * CHUNK)
    sizes.clear()
    sink.data.clear()
    reader(Watched(data), signers=[PUBLIC], stream_unverified=True).copy_to(sink)
    assert set(sizes) == {0, CHUNK, 2 * CHUNK}


def test_a_folder_that_nothing_can_wait_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An OSError of Python came out."""
    data = Naive(content(CHUNK), signer=SIGNER).data()
    with pytest.raises(ResourceError, match="E601: ENOENT"):
        reader(data, signers=[PUBLIC], spool=tmp_path / "nowhere").read()
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "nowhere")])
    with pytest.raises(ResourceError, match="E601: ENOENT"):
        reader(data, signers=[PUBLIC]).read()


def test_what_waits_is_ciphertext_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, kept = Naive(content(3 * CHUNK), signer=SIGNER).data(), []
    true = tempfile.TemporaryFile

    def watched(**options: Any) -> Any:
        assert options == {"dir": tmp_path}
        kept.append(true(**options))
        return kept[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", watched)
    found = reader(data, signers=[PUBLIC], spool=tmp_path)
    assert found.read(1) == b"\0"
    assert list(tmp_path.iterdir()) == []
    (file,) = kept
    file.seek(0)
    for index in range(3):
        at = HEADER + index * (CHUNK + 20)
        assert file.read(CHUNK + 20) == data[at : at + CHUNK + 20]
        file.read(32)  # what the chunk is known by
    assert file.read() == b""
    found.close()
    assert file.closed


def test_a_forged_stream_fills_no_disk(tmp_path: Path) -> None:
    """Chunks are verified before they wait."""
    data = bytearray(Naive(content(5 * CHUNK), signer=SIGNER).data())
    data[HEADER + CHUNK + 100] ^= 1
    stream = io.BytesIO(bytes(data))
    with pytest.raises(ArtifactRefused, match="E705: chunk 1 "):
        Reader(stream, identities(), signers=[PUBLIC]).read(1)
    assert stream.tell() <= HEADER + 2 * (CHUNK + 20)


def test_a_stream_that_breaks_while_it_waits() -> None:
    class Breaking(Dribble):
        def readinto(self, buffer: memoryview) -> int:
            if self._stream.tell() > HEADER + 10:
                raise OSError(5, "broken")
            return super().readinto(buffer)

    with pytest.raises(ResourceError, match="E604: EIO reading the stream"):
        reader(Breaking(Naive(content(CHUNK), signer=SIGNER).data()), signers=[PUBLIC]).read(1)


def test_a_disk_that_is_full_when_the_buffer_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing wrote it once more, and its error came out in the place of the first."""
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: io.BufferedRandom(Full(), 2**24))
    with pytest.raises(ResourceError, match="E601: ENOSPC writing"):
        reader(Naive(content(CHUNK), signer=SIGNER).data(), signers=[PUBLIC]).read()


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "full")

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(ResourceError, match="E601: ENOSPC writing"):
        reader(Naive(b"abc", signer=SIGNER).data(), signers=[PUBLIC], spool=tmp_path).read()


@pytest.mark.parametrize("way", [{"signers": [PUBLIC]}, {"signers": [PUBLIC], "stream_unverified": True}])
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"signer": None}, "E742"),
        ({"signer": OTHER}, "E743"),
        ({"statement": b"{}"}, "E740"),
        ({"said": {"name": "", "role": "", "date": "yesterday"}}, "E740"),
        ({"leaves": [bytes(32), bytes(32)]}, "E708"),
        ({"signer": None, "leaves": [bytes(32), bytes(32)], "statement": b"x"}, "E708"),
    ],
)
def test_signatures_that_a_recipient_might_forge(way: dict[str, Any], change: dict[str, Any], code: str) -> None:
    file = dataclasses.replace(Naive(content(CHUNK + 1), signer=SIGNER), **change)
    outcome = streamed(file.data(), **way)
    assert outcome.code == code
    assert outcome.out == (content(CHUNK) if "stream_unverified" in way else b"")


def test_a_signature_is_checked_where_nobody_asks_for_a_signer() -> None:
    file = Naive(b"abc", signer=SIGNER)
    file.statement = file.sign(1, 3, bytes(32))
    assert streamed(file.data()).code == ""
    assert streamed(file.data(), check_signature=True).code == "E741"


# Files that a holder of the key wrote wrong.


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"padding": b"\0\1"}, "E711"),
        ({"padding": b"\1" + bytes(CHUNK)}, "E711"),
        ({"padding": bytes(CHUNK) + b"\1"}, "E711"),
        ({"padding": bytes(CHUNK)}, ""),
        ({"size": CHUNK + 10}, "E711"),
        ({"size": 2**53}, "E711"),
        ({"size": 2}, "E711"),
        ({"size": 0, "content": bytes(5)}, ""),
        ({"description": b"{}"}, "E711"),
        ({"foot": {"chunks": 3}}, "E711"),
        ({"foot": {"stream": 1}}, "E711"),
        ({"foot": {"statement": 1}}, "E708"),
        ({"foot": {"leaves": 64}}, "E708"),
        ({"foot": {"leaves": 2**63}}, "E708"),
        ({"foot": {"zero": 1}}, "E708"),
        ({"leaves": [bytes(32), bytes(32)]}, "E711"),
        ({"statement": b"x"}, "E708"),
    ],
)
def test_what_contradicts_itself(change: dict[str, Any], code: str, tmp_path: Path) -> None:
    file = dataclasses.replace(Naive(content(CHUNK + 5)), **change)
    outcome = streamed(file.data())
    assert outcome.code == code, outcome.message
    assert file.stream().startswith(outcome.out)


def test_chunks_of_other_sizes() -> None:
    """A short chunk before the last, or an empty last one, that opens all the same."""
    file = Naive(content(2 * CHUNK))
    region, records, _ = file.parts()
    short = [file.record(0, False, content(CHUNK - 1)), file.record(1, True, b"x")]
    empty = [*(file.record(i, False, content(CHUNK)) for i in range(2)), file.record(2, True, b"")]
    for chunks in (short, empty):
        assert streamed(region + b"".join(chunks) + file.trailer(chunks)).code == "E705"
    assert streamed(region + b"".join(records) + file.trailer(records)).code == ""


# Streams without an end.


class Endless(io.RawIOBase):
    """These bytes, then others for ever; counts them."""

    def __init__(self, start: bytes, then: bytes = b"\0") -> None:
        super().__init__()
        self._parts = self._all(start, then * (10_000 // len(then)))
        self.given = 0

    def _all(self, start: bytes, then: bytes) -> Iterator[bytes]:
        yield start
        while True:
            yield then

    def readinto(self, buffer: memoryview) -> int:
        if not hasattr(self, "_left") or not self._left:
            self._left = next(self._parts)
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        self.given += size
        return size


@pytest.mark.parametrize("file", [Naive(content(CHUNK + 5)), Naive(content(CHUNK + 5), signer=SIGNER)])
@pytest.mark.parametrize("then", [b"\0", b"\xff", b"VBSEALTR", os.urandom(999), Naive(b"abc").region()[:9999]])
def test_endless_streams_come_to_an_end(file: Naive, then: bytes) -> None:
    region, records, trailer = file.parts()
    whole = region + b"".join(records) + trailer
    for cut in (
        0,
        8,
        100,
        HEADER,
        HEADER + 4,
        HEADER + CHUNK + 20,
        len(whole) - len(trailer),
        len(whole) - 72,
        len(whole),
    ):
        stream = Endless(whole[:cut], then)
        sink = Recorder()
        with pytest.raises(ArtifactRefused):
            Reader(stream, identities()).copy_to(sink)
        assert stream.given <= max(cut, HEADER) + CHUNK + 20_000
        assert file.content.startswith(sink.data)
        assert len(sink.data) < len(file.content)


def test_a_stream_that_breaks() -> None:
    class Breaking(Dribble):
        def readinto(self, buffer: memoryview) -> int:
            if self._stream.tell() > HEADER + 10:
                raise OSError(5, "broken")
            return super().readinto(buffer)

    found = reader(Breaking(Naive(content(CHUNK)).data()))
    with pytest.raises(ResourceError, match="E604: EIO reading the stream"):
        found.read(1)


def test_readers_and_writers_take_whoever_save_and_load_take(tmp_path: Path) -> None:
    """They took objects of modules that no page names, and died of anything else."""
    key, maker = seal.generate("x25519"), seal.generate("ed25519")
    keys.write(tmp_path / "me.pub", key.public())
    keys.write(tmp_path / "maker.pub", maker.public())
    hook = statement.hook(maker)
    with seal.Writer(str(tmp_path / "y"), [str(tmp_path / "me.pub"), seal.Passphrase("x" * 20)], sign=hook) as writer:
        writer.write(b"content")
        writer.finish()  # leaving the block is no second time
    for identity in (key, [key], seal.Passphrase("x" * 20)):
        with (tmp_path / "y").open("rb") as stream:
            assert seal.Reader(stream, identity, signers=tmp_path / "maker.pub").read() == b"content"
        with seal.Sealed.open(str(tmp_path / "y"), identity, signers=maker.public()) as sealed:
            assert sealed.read(0, 7) == b"content"
    with (tmp_path / "y").open("rb") as stream, pytest.raises(ConfigError, match="E748"):
        seal.Reader(stream, key, signers=[])
    with pytest.raises(ConfigError, match="E724"):
        seal.Writer(tmp_path / "z", ["nobody.pub"])

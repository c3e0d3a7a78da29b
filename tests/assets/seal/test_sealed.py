"""Any part of a file on disk: the right bytes, of the touched chunks only, verified each time."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assets.seal.harness import CHUNK, OTHER, PUBLIC, SIGNER, Recorder, content, identities, random_access
from assets.seal.naive_sealed import HEADER, Naive, padme, wrap
from vambrace.assets.seal import sealed as sealing
from vambrace.assets.seal.chunks import OVERHEAD
from vambrace.assets.seal.opening import sidecar_path
from vambrace.assets.seal.reader import Reader, Sealed
from vambrace.assets.seal.source import FileSource
from vambrace.errors import ArtifactRefused, ConfigError, ResourceError

SIZE = 5 * CHUNK + 777
DATA = content(SIZE)
BORDERS = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2**17 + 1, padme(2**17 + 1), 3 * CHUNK + 5]


def open_(path: Path, **options: Any) -> Sealed:
    return Sealed.open(path, identities(), **options)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.sealed"
    path.write_bytes(Naive(DATA, signer=SIGNER).data())
    return path


@pytest.fixture
def touched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Numbers of the chunks that are read, as they are read."""
    found: list[int] = []
    true = FileSource.read_into

    def watched(self: FileSource, offset: int, out: memoryview) -> None:
        if HEADER <= offset < HEADER + 6 * (CHUNK + 20) and len(out) > 700:
            found.append((offset - HEADER) // (CHUNK + 20))
        true(self, offset, out)

    monkeypatch.setattr(FileSource, "read_into", watched)
    return found


@pytest.mark.parametrize("size", BORDERS)
@pytest.mark.parametrize("file", [{}, {"pad": True}, {"signer": SIGNER, "pad": True}, {"size": None, "suite": 4}])
@pytest.mark.parametrize("threads", [1, 3])
def test_round_trip(size: int, file: dict[str, Any], threads: int, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(Naive(content(size), **file).data())
    for way in [{}, {"signers": [PUBLIC]}] if "signer" in file else [{}]:
        with open_(path, threads=threads, **way) as sealed:
            assert (sealed.size, sealed.signed) == (size, "signer" in file)
            assert sealed.read(0, size) == content(size)
            sealed.copy_to(sink := Recorder())
            assert sink.data == content(size)
            said = sealed.verify()
            assert (said is not None and said.signer == PUBLIC) if "signer" in file else said is None


@given(begin=st.integers(0, SIZE), size=st.integers(0, SIZE), threads=st.integers(1, 3), signed=st.booleans())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_range(begin: int, size: int, threads: int, signed: bool, path: Path) -> None:
    end = min(SIZE, begin + size)
    with open_(path, threads=threads, signers=[PUBLIC] if signed else None) as sealed:
        assert sealed.read(begin, end) == DATA[begin:end]
        out = bytearray(b"\xee" * (end - begin + 2))
        sealed.read_into(begin, memoryview(out)[1:-1], threads=threads)
        assert out == b"\xee" + DATA[begin:end] + b"\xee"


@pytest.mark.parametrize(
    ("begin", "end", "chunks"),
    [
        (0, 0, []),
        (0, 1, [0]),
        (CHUNK - 1, CHUNK, [0]),
        (CHUNK, CHUNK + 1, [1]),
        (CHUNK, 2 * CHUNK, [1]),
        (CHUNK - 1, 2 * CHUNK + 1, [0, 1, 2]),
        (SIZE - 1, SIZE, [5]),
        (SIZE, SIZE, []),
        (0, SIZE, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_only_what_is_needed_is_read(begin: int, end: int, chunks: list[int], path: Path, touched: list[int]) -> None:
    with open_(path) as sealed:
        touched.clear()
        sealed.read(begin, end)
        assert touched == chunks


def test_neighbours_in_one_chunk_cost_one_decryption(path: Path, touched: list[int]) -> None:
    with open_(path) as sealed:
        touched.clear()
        for begin in range(CHUNK + 100, CHUNK + 5000, 100):
            assert sealed.read(begin, begin + 100) == DATA[begin : begin + 100]
        assert touched == [1]
        sealed.read(0, 1)
        sealed.read(CHUNK, CHUNK + 1)
        assert touched == [1, 0, 1]


@pytest.mark.parametrize("signers", [None, [PUBLIC]])
def test_damage_is_found_where_it_is_touched(signers: list[bytes] | None, path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[HEADER + 2 * (CHUNK + 20) + 100] ^= 1
    path.write_bytes(data)
    with open_(path, signers=signers) as sealed:
        assert sealed.read(0, 2 * CHUNK) == DATA[: 2 * CHUNK]
        assert sealed.read(3 * CHUNK, SIZE) == DATA[3 * CHUNK :]
        for touch in (lambda: sealed.read(3 * CHUNK - 1, SIZE), lambda: sealed.read(0, SIZE), sealed.verify):
            with pytest.raises(ArtifactRefused, match="E705: chunk 2 "):
                touch()
        out = bytearray(b"\xee" * SIZE)
        with pytest.raises(ArtifactRefused, match="E705: chunk 2 "):
            sealed.read_into(0, out, threads=3)
        assert set(out[2 * CHUNK : 3 * CHUNK]) <= {0, 0xEE}
        sink = Recorder()
        with pytest.raises(ArtifactRefused, match="E705: chunk 2 "):
            sealed.copy_to(sink)
        assert sink.data == DATA[: 2 * CHUNK]


def test_a_chunk_that_a_recipient_put_in_is_found_where_it_is_touched(path: Path) -> None:
    """Authentic under the key, but not what was signed: every lazy read looks at the leaf."""
    file = Naive(DATA, signer=SIGNER)
    data = bytearray(path.read_bytes())
    at = HEADER + 2 * (CHUNK + 20)
    data[at : at + CHUNK + 20] = file.record(2, False, b"M" * CHUNK)
    path.write_bytes(data)
    with open_(path) as sealed:  # without a signer it is intact, and of unknown origin
        assert sealed.read(2 * CHUNK, 2 * CHUNK + 3) == b"MMM"
        with pytest.raises(ArtifactRefused, match="E705: chunk 2 is not the one that was signed"):
            sealed.verify()
    with open_(path, signers=[PUBLIC]) as sealed:
        assert sealed.read(0, CHUNK) == DATA[:CHUNK]
        for begin, end in ((2 * CHUNK, 2 * CHUNK + 3), (2 * CHUNK, 3 * CHUNK)):
            with pytest.raises(ArtifactRefused, match="E705: chunk 2 is not the one that was signed"):
                sealed.read(begin, end)


@pytest.mark.parametrize("keep", [False, True])
def test_who_asked_for_the_signer_reads_what_was_signed(keep: bool, path: Path) -> None:
    """Ada's leaves and statement behind chunks by somebody else: nothing of them passes for Ada's."""
    file = Naive(DATA, signer=SIGNER)
    data = bytearray(path.read_bytes())
    at = HEADER + 2 * (CHUNK + 20)
    data[at : at + CHUNK + 20] = file.record(2, False, b"M" * CHUNK)
    path.write_bytes(data)
    with open_(path) as sealed:
        if keep:
            assert sealed.read(2 * CHUNK, 2 * CHUNK + 3) == b"MMM"  # whose chunk is remembered
        assert sealed.statement is not None
        assert sealed.read(0, CHUNK) == DATA[:CHUNK]
        for begin, end in ((2 * CHUNK, 2 * CHUNK + 3), (0, SIZE)):
            with pytest.raises(ArtifactRefused, match="E705: chunk 2 is not the one that was signed"):
                sealed.read(begin, end)
        with pytest.raises(ArtifactRefused, match="E705"):
            sealed.copy_to(Recorder())


@pytest.mark.parametrize("threads", [0, -1, 257])
def test_less_than_one_thread_or_too_many(threads: int, path: Path) -> None:
    """Nobody gets nothing for a result."""
    with pytest.raises(ConfigError, match="E712"):
        open_(path, threads=threads)
    with open_(path) as sealed:
        for call in (
            lambda: sealed.copy_to(Recorder(), threads=threads),
            lambda: sealed.read_into(0, bytearray(5), threads=threads),
            lambda: sealed.verify(threads=threads),
        ):
            with pytest.raises(ConfigError, match="E712"):
                call()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"signer": None}, "E742"),
        ({"signer": OTHER}, "E743"),
        ({"statement": b"{}"}, "E740"),
        ({"statement": Naive(DATA, signer=SIGNER).sign(6, SIZE, bytes(32))}, "E741"),
    ],
)
def test_signatures_that_a_recipient_might_forge(change: dict[str, Any], code: str, path: Path) -> None:
    path.write_bytes(dataclasses.replace(Naive(DATA, signer=SIGNER), **change).data())
    assert random_access(path, signers=[PUBLIC]).code == code


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"padding": b"\0\1"}, "E711"),
        ({"padding": b"\1" + bytes(CHUNK)}, "E711"),
        ({"padding": bytes(2 * CHUNK) + b"\1"}, "E711"),
        ({"padding": bytes(CHUNK)}, ""),
        ({"size": SIZE + 10}, "E711"),
        ({"size": 2**53}, "E711"),
        ({"size": 2}, "E711"),
        ({"description": b"{}"}, "E711"),
        ({"foot": {"chunks": 7}}, "E711"),
        ({"foot": {"stream": 1}}, "E711"),
        ({"foot": {"statement": 1}}, "E708"),
        ({"foot": {"leaves": 2**63}}, "E708"),
        ({"foot": {"zero": 1}}, "E708"),
        ({"leaves": [bytes(32)] * 6}, "E711"),
        ({"statement": b"x"}, "E708"),
    ],
)
def test_what_contradicts_itself(change: dict[str, Any], code: str, path: Path) -> None:
    """As a stream reader finds it, so does a full reading."""
    path.write_bytes(dataclasses.replace(Naive(DATA), **change).data())
    outcome = random_access(path)
    assert outcome.code == code, outcome.message


def test_padding_counts_only_for_who_reads_it(path: Path) -> None:
    path.write_bytes(Naive(DATA, padding=bytes(2 * CHUNK) + b"\1").data())
    with open_(path) as sealed:
        assert sealed.read(0, CHUNK) == DATA[:CHUNK]
        for touch in (sealed.verify, lambda: sealed.copy_to(Recorder()), lambda: sealed.read(0, SIZE)):
            with pytest.raises(ArtifactRefused, match="E711: padding that is not zero"):
                touch()


@pytest.mark.parametrize(("begin", "end"), [(-1, 1), (0, SIZE + 1), (SIZE, SIZE + 1), (5, 4), (2**70, 2**70 + 1)])
def test_ranges_outside(begin: int, end: int, path: Path) -> None:
    with open_(path) as sealed:
        with pytest.raises(ConfigError, match="E716"):
            sealed.read(begin, end)
        if end > begin:
            with pytest.raises(ConfigError, match="E716"):
                sealed.read_into(begin, bytearray(min(end - begin, SIZE + 1)))


def test_any_writable_buffer(path: Path) -> None:
    with open_(path) as sealed:
        array = np.empty((4, 20_000), np.float32)
        sealed.read_into(3, array)
        assert array.tobytes() == DATA[3:320_003]
        sealed.read_into(3, np.empty((0, 4)))
        with pytest.raises((TypeError, ValueError, BufferError)):
            sealed.read_into(3, bytes(CHUNK))
        with pytest.raises((TypeError, ValueError, BufferError)):
            sealed.read_into(3, array[:, ::2])


def test_one_file_for_many_threads(path: Path) -> None:
    failed: list[BaseException] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for _ in range(60):
                begin, end = sorted(rng.integers(0, SIZE, 2).tolist())
                end = min(end, begin + 3000)
                assert sealed.read(begin, end) == DATA[begin:end]
        except BaseException as error:
            failed.append(error)

    with open_(path, signers=[PUBLIC]) as sealed:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []


def test_a_file_that_changes_while_it_is_open(path: Path) -> None:
    with open_(path, signers=[PUBLIC]) as sealed:
        os.truncate(path, HEADER + 2 * (CHUNK + 20) + 50)
        assert sealed.read(0, 2 * CHUNK) == DATA[: 2 * CHUNK]
        with pytest.raises(ArtifactRefused, match="E706: the end of the file at byte"):
            sealed.read(0, SIZE)


def test_a_closed_file(path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    sealed = open_(path)
    assert sealed.read(0, 3) == DATA[:3]
    sealed.close()
    sealed.close()
    with pytest.raises(ResourceError, match="E604"):
        sealed.read(CHUNK, CHUNK + 3)
    with pytest.raises(ArtifactRefused):
        Sealed.open(path, identities(b"x" * 32))
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_interrupted_change_of_the_header(path: Path) -> None:
    file = Naive(DATA, signer=SIGNER)
    stanza = wrap(b"b" * 32, b"n" * 32, file.file_key, file.binding())
    new = dataclasses.replace(file, epoch=1, recipients=[stanza]).region()
    torn = new[:20_000] + bytes(10) + path.read_bytes()[20_010:]
    path.write_bytes(torn[: HEADER - 32] + b"x" * 32 + torn[HEADER:])
    with pytest.raises(ArtifactRefused, match="E702"):
        Sealed.open(path, identities(b"b" * 32))
    sidecar_path(path).write_bytes(new + hashlib.sha256(new).digest())
    with Sealed.open(path, identities(b"b" * 32), signers=[PUBLIC]) as sealed:
        assert sealed.read(0, SIZE) == DATA
        assert sealed.header.epoch == 1


def test_a_header_that_is_changed_meanwhile(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read while it is half written, and the sidecar is gone before it is looked for."""
    whole, looked = path.read_bytes(), 0

    def late(place: Path, region: bytes) -> None:
        nonlocal looked
        looked += 1
        path.write_bytes(whole)

    monkeypatch.setattr(sealing, "read_sidecar", late)
    path.write_bytes(whole[:300] + bytes(100) + whole[400:])
    with open_(path) as sealed:
        assert sealed.read(0, 3) == DATA[:3]
    assert looked == 2

    def always(place: Path, region: bytes) -> None:
        nonlocal looked
        looked += 1
        path.write_bytes(whole[:300] + looked.to_bytes(100, "big") + whole[400:])

    looked = 0
    always(path, b"")
    monkeypatch.setattr(sealing, "read_sidecar", always)
    with pytest.raises(ArtifactRefused, match="E702"):
        open_(path)
    assert looked == 9


def test_the_sidecar_lies_beside_the_file_itself(path: Path, tmp_path: Path) -> None:
    file = Naive(DATA, signer=SIGNER)
    stanza = wrap(b"b" * 32, b"n" * 32, file.file_key, file.binding())
    new = dataclasses.replace(file, epoch=1, recipients=[stanza]).region()
    sidecar_path(path).write_bytes(new + hashlib.sha256(new).digest())
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link"
    link.symlink_to(path)
    with Sealed.open(link, identities(b"b" * 32)) as sealed:
        assert sealed.header.epoch == 1


def test_expiry(path: Path) -> None:
    path.write_bytes(Naive(b"abc", metadata={"expires": "2001-01-01T00:00:00Z"}).data())
    with pytest.raises(ArtifactRefused, match="E710"):
        open_(path)
    with open_(path, ignore_expiry=True) as sealed:
        assert sealed.read(0, 3) == b"abc"


@pytest.mark.parametrize("answer", [0, None])
def test_a_sink_that_takes_no_more_for_now(path: Path, answer: int | None) -> None:
    """None of a raw stream that does not wait says that it took nothing, and of others that it took all."""

    class Full(io.RawIOBase):
        def __init__(self) -> None:
            self.calls = 0

        def write(self, data: Any) -> int | None:
            self.calls += 1
            assert self.calls < 9, "asked again and again"
            return 10_000 if self.calls < 3 else answer

    with open_(path) as sealed, pytest.raises(BlockingIOError):
        sealed.copy_to(Full())
    with path.open("rb") as stream, pytest.raises(BlockingIOError):
        Reader(stream, identities()).copy_to(Full())


def test_a_stream_goes_on_where_the_sink_took_no_more(path: Path) -> None:
    """As after a `select`: the chunk that was refused was lost, and nobody heard of it."""

    class Full(Recorder):
        calls = 0

        def write(self, data: bytes | memoryview) -> int:
            self.calls += 1
            return super().write(data[:10_000]) if self.calls % 3 else 0

    sink, times = Full(), 0
    with path.open("rb") as stream:
        reader = Reader(stream, identities())
        while True:
            try:
                reader.copy_to(sink)
                break
            except BlockingIOError:
                times += 1
    assert sink.data == DATA
    assert times > 9


def test_a_sink_that_takes_little(path: Path) -> None:
    class Little(Recorder):
        def write(self, data: bytes | memoryview) -> int:
            return super().write(data[:10_000])

    with open_(path) as sealed:
        sealed.copy_to(sink := Little(), threads=2)
    assert sink.data == DATA
    with path.open("rb") as stream:
        assert Reader(stream, identities()).copy_to(sink := Little()) == SIZE
    assert sink.data == DATA


def test_a_sink_that_does_not_say_how_much_it_takes(path: Path) -> None:
    """None stands for all of it, but in raw streams of Python's own."""

    class Silent(Recorder):
        def write(self, data: bytes | memoryview) -> None:
            assert len(self.data) < SIZE, "asked again"
            super().write(data)

    with open_(path) as sealed, path.open("rb") as stream:
        for source in (sealed, Reader(stream, identities())):
            source.copy_to(sink := Silent())
            assert sink.data == DATA


def test_a_file_and_a_stream_name_the_same_chunk_that_is_cut(tmp_path: Path) -> None:
    """Of a file it was the one behind."""
    path = tmp_path / "cut.sealed"
    whole = Naive(DATA).data()
    for chunk in range(3):
        data = whole[: HEADER + chunk * (CHUNK + OVERHEAD) + CHUNK // 2]
        path.write_bytes(data)
        with pytest.raises(ArtifactRefused, match=f"E706: the end of the file in chunk {chunk}") as file:
            open_(path)
        with pytest.raises(ArtifactRefused, match="E706") as stream, Reader(io.BytesIO(data), identities()) as reader:
            reader.copy_to(io.BytesIO())
        assert f"chunk {chunk}" in file.value.seen
        assert f"chunk {chunk}" in stream.value.seen

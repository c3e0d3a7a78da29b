"""Chunks: places, frames, nonces, and the threads that share them."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.seal.harness import CHUNK, content
from assets.seal.naive_sealed import HEADER, Naive
from vambrace.assets.seal import header as headers
from vambrace.assets.seal.chunks import MOST_CHUNKS, ChunkCipher, Layout, spread
from vambrace.assets.seal.schedule import FileKeys
from vambrace.assets.seal.suites import Suite
from vambrace.errors import ArtifactRefused

FILE = Naive(content(2 * CHUNK + 5))


def cipher(file: Naive = FILE) -> ChunkCipher:
    fixed = headers.parse(file.region()).fixed
    return ChunkCipher(FileKeys(file.file_key, file.salt, Suite(file.suite)), fixed)


@given(stream=st.integers(0, 2**40), power=st.integers(16, 24))
def test_layout(stream: int, power: int) -> None:
    layout = Layout(chunk_size=2**power, stream=stream)
    last = layout.count - 1
    assert layout.count >= 1
    assert layout.plain(last) == stream - last * 2**power
    assert 0 <= layout.plain(last) <= 2**power
    assert (layout.plain(last) == 0) == (stream == 0)
    assert layout.offset(0) == HEADER
    assert layout.end == layout.offset(last) + layout.plain(last) + 20


def test_layout_is_that_of_a_file() -> None:
    region, records, trailer = FILE.parts()
    layout = Layout(chunk_size=CHUNK, stream=len(FILE.content))
    places = [len(region) + sum(map(len, records[:i])) for i in range(len(records))]
    assert [layout.offset(i) for i in range(layout.count)] == places
    assert layout.end == len(FILE.data()) - len(trailer)


@pytest.mark.parametrize("suite", Suite)
def test_records_are_those_of_the_page(suite: Suite) -> None:
    file = Naive(FILE.content, suite=suite)
    for index, record in enumerate(file.records()):
        plain = memoryview(file.content)[index * CHUNK : (index + 1) * CHUNK]
        out, back = bytearray(len(record)), bytearray(len(plain))
        cipher(file).seal(index, index == 2, [plain], memoryview(out))
        assert out == record
        cipher(file).open(index, index == 2, memoryview(record), memoryview(back))
        assert back == plain


def test_a_chunk_opens_in_its_own_place_only() -> None:
    record = memoryview(FILE.records()[1])
    for index, last in ((0, False), (2, False), (1 + 2**31, False), (1, True)):
        out = bytearray(b"\xee" * CHUNK)
        with pytest.raises(ArtifactRefused, match=f"E705: chunk {index} "):
            cipher().open(index, last, record, memoryview(out))
        assert set(out) in ({0}, {0xEE})
    with pytest.raises(ArtifactRefused, match="E705: chunk 1 has another frame"):
        cipher().open(1, False, record[:-1], memoryview(bytearray(CHUNK - 1)))


@pytest.mark.parametrize(
    ("index", "word", "found"),
    [
        (0, CHUNK, (CHUNK, False)),
        (0, 2**31, (0, True)),
        (0, 2**31 + 5, (5, True)),
        (9, 2**31 + CHUNK, (CHUNK, True)),
        (MOST_CHUNKS - 1, 2**31 + 1, (1, True)),
        (0, 0, None),
        (9, 2**31, None),
        (0, 5, None),
        (0, CHUNK - 1, None),
        (0, CHUNK + 1, None),
        (0, 2**31 + CHUNK + 1, None),
        (0, 2**32 - 1, None),
        (MOST_CHUNKS - 1, CHUNK, None),
        (MOST_CHUNKS, 2**31 + 1, None),
    ],
)
def test_frames(index: int, word: int, found: tuple[int, bool] | None) -> None:
    frame = word.to_bytes(4, "little")
    if found:
        assert cipher().frame(index, frame) == found
        return
    with pytest.raises(ArtifactRefused, match=f"E705: chunk {index} "):
        cipher().frame(index, frame)


@pytest.mark.parametrize("threads", [1, 2, 5, 100])
@pytest.mark.parametrize("size", [0, 1, 2, 57])
def test_every_index_once(threads: int, size: int) -> None:
    seen: list[int] = []
    spread(seen.append, range(3, 3 + size), threads)
    assert sorted(seen) == list(range(3, 3 + size))


def test_threads_work_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=10)
    spread(lambda _: together.wait() and None, range(3), 3)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_first_failure_is_told_after_all_have_stopped(threads: int) -> None:
    working: set[int] = set()

    def work(index: int) -> None:
        working.add(index)
        if index == 10:
            time.sleep(0.05)
        working.discard(index)
        if index in {10, 11, 12}:
            raise ValueError(str(index))

    with pytest.raises(ValueError, match=r"^10$"):
        spread(work, range(1000), threads)
    assert not working

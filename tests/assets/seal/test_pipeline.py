"""Threads that seal: in order, with few buffers, and no byte read after the caller was told so."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from vambrace.assets.seal.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZE = 64


class Slow:
    """A cipher that waits for a gate, and copies."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.threads: set[int] = set()

    def seal(self, index: int, last: bool, parts: Sequence[memoryview], record: memoryview) -> None:
        assert self.gate.wait(10)
        self.threads.add(threading.get_ident())
        record[:] = bytes([index % 256, last]) + bytes(18) + b"".join(parts)


def run(threads: int, cipher: Any, count: int) -> list[bytes]:
    found: list[bytes] = []
    pipeline = Pipeline(cipher, SIZE, lambda record, leaf: found.append(bytes(record)), hashed=False, threads=threads)
    for index in range(count):
        pipeline.plain[:] = bytes([index % 256]) * SIZE
        pipeline.put(index, index == count - 1, [pipeline.plain[: SIZE - index % 3]])
    pipeline.settle()
    pipeline.close()
    pipeline.close()
    return found


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_order(threads: int) -> None:
    found = run(threads, Slow(), 300)
    assert [record[0] for record in found] == [index % 256 for index in range(300)]
    assert [len(record) for record in found] == [SIZE + 20 - index % 3 for index in range(300)]
    assert all(set(record[20:]) == {index % 256} for index, record in enumerate(found))


@pytest.mark.parametrize(("size", "together"), [(2**20, 4), (2**21, 2), (2**24, 1)])
def test_where_records_stay_neighbours_are_for_one_thread(size: int, together: int) -> None:
    """Each step of the queues costs a few per cent of a chunk."""
    by: dict[int, int] = {}

    class Noting(Slow):
        def seal(self, index: int, last: bool, parts: Sequence[memoryview], record: memoryview) -> None:
            super().seal(index, last, parts, record)
            by[index] = threading.get_ident()
            time.sleep(0.0005)

    found: list[bytes] = []
    pipeline = Pipeline(
        Noting(),
        size,
        lambda record, leaf: found.append(bytes(record)),
        hashed=False,
        threads=3,
        room=lambda size: memoryview(bytearray(size)),
    )
    for index in range(102):
        pipeline.put(index, False, [memoryview(b"x")])
    pipeline.settle()
    pipeline.close()
    assert [record[0] for record in found] == list(range(102))
    runs = [{by[index] for index in range(begin, begin + together)} for begin in range(0, 100, together)]
    assert all(len(threads) == 1 for threads in runs)
    assert 2 <= len(set(by.values())) <= 3


def test_where_records_stay_the_last_ones_are_shared_out() -> None:
    """Pieces of a file come by four chunks, each with a wait behind it: one run would leave the other thread idle."""
    both = threading.Barrier(2)

    class Meeting(Slow):
        def seal(self, index: int, last: bool, parts: Sequence[memoryview], record: memoryview) -> None:
            super().seal(index, last, parts, record)
            both.wait(10)

    pipeline = Pipeline(
        Meeting(),
        2**20,
        lambda record, leaf: None,
        hashed=False,
        threads=2,
        room=lambda size: memoryview(bytearray(size)),
    )
    for index in range(2):
        pipeline.put(index, False, [memoryview(b"x")])
    pipeline.settle()
    pipeline.close()


def test_who_gives_more_than_may_wait_seals_one_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of all at once, and the other threads would wait for the interpreter until that many had been given."""
    monkeypatch.setattr(threading.Thread, "start", lambda _: None)
    done: list[str] = []

    class Noting(Slow):
        def seal(self, index: int, last: bool, parts: Sequence[memoryview], record: memoryview) -> None:
            super().seal(index, last, parts, record)
            done.append("sealed")

    pipeline = Pipeline(Noting(), 2**20, lambda record, leaf: None, hashed=False, threads=2)
    for index in range(100):
        pipeline.put(index, False, [memoryview(b"x")])
        done.append("given")
    pipeline.settle()
    assert done == ["given"] * 32 + ["sealed", "given"] * 68 + ["sealed"] * 32


def test_one_thread_is_the_callers_own() -> None:
    cipher = Slow()
    run(1, cipher, 5)
    assert cipher.threads == {threading.get_ident()}


def test_settled_is_not_read_any_more() -> None:
    cipher, found = Slow(), []
    pipeline = Pipeline(cipher, SIZE, lambda record, leaf: found.append(bytes(record[20:])), hashed=False, threads=2)
    mine = bytearray(b"a" * SIZE)
    cipher.gate.clear()
    pipeline.put(0, False, [memoryview(mine)])
    threading.Timer(0.05, cipher.gate.set).start()
    pipeline.settle()
    mine[:] = b"b" * SIZE
    pipeline.close()
    assert found == [b"a" * SIZE]


@pytest.mark.parametrize("threads", [1, 3])
def test_parts_of_others_behind_ones_own(threads: int) -> None:
    found: list[bytes] = []
    pipeline = Pipeline(
        Slow(), SIZE, lambda record, leaf: found.append(bytes(record[20:])), hashed=False, threads=threads
    )
    for index in range(100):
        pipeline.plain[:5] = bytes([index]) * 5
        pipeline.put(index, False, [pipeline.plain[:5], memoryview(b"others"), memoryview(b""), memoryview(b"!")])
    pipeline.settle()
    pipeline.close()
    assert found == [bytes([index]) * 5 + b"others!" for index in range(100)]


def test_a_slow_sink_does_not_keep_the_others_from_sealing() -> None:
    """While one chunk is written, those behind it are sealed; and one at a time is written, however many threads."""
    cipher, writing, sealed = Slow(), threading.Semaphore(1), threading.Event()

    def emit(record: memoryview, leaf: bytes | None) -> None:
        assert writing.acquire(blocking=False), "two at once"
        if record[0] == 0:
            assert sealed.wait(10), "nobody seals while the first is written"
        writing.release()

    class Counting(Slow):
        def seal(self, index: int, last: bool, parts: Sequence[memoryview], record: memoryview) -> None:
            super().seal(index, last, parts, record)
            if index == 2:
                sealed.set()

    cipher = Counting()
    pipeline = Pipeline(cipher, SIZE, emit, hashed=False, threads=3)
    for index in range(200):
        pipeline.put(index, False, [memoryview(bytes(SIZE))])
    pipeline.settle()
    pipeline.close()
    assert len(cipher.threads) <= 3


def test_few_buffers() -> None:
    cipher, plain, records = Slow(), set(), set()

    def emit(record: memoryview, leaf: bytes | None) -> None:
        records.add(id(record.obj))

    pipeline = Pipeline(cipher, SIZE, emit, hashed=False, threads=3)
    for index in range(300):
        plain.add(id(pipeline.plain.obj))
        pipeline.put(index, False, [pipeline.plain])
    pipeline.settle()
    pipeline.close()
    assert len(plain) <= 5
    assert len(records) <= 5


@pytest.mark.parametrize(("size", "most"), [(SIZE, 64), (2**20, 32), (2**24, 4)])
def test_the_caller_does_not_run_ahead(size: int, most: int) -> None:
    """Parts are held until they are sealed, so those that wait have to be few."""
    cipher = Slow()
    cipher.gate.clear()
    pipeline, given = Pipeline(cipher, size, lambda record, leaf: None, hashed=False, threads=2), []

    def give() -> None:
        for index in range(500):
            pipeline.put(index, False, [memoryview(bytes(SIZE))])
            given.append(index)

    caller = threading.Thread(target=give)
    caller.start()
    caller.join(0.2)
    assert 2 <= len(given) <= most
    cipher.gate.set()
    caller.join(10)
    pipeline.settle()
    pipeline.close()
    assert len(given) == 500


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("place", ["seal", "emit"])
def test_errors_come_out(threads: int, place: str) -> None:
    emitted: list[int] = []

    class Failing(Slow):
        def seal(self, index: int, last: bool, parts: Sequence[memoryview], record: memoryview) -> None:
            super().seal(index, last, parts, record)
            if place == "seal" and index == 7:
                raise ValueError(index)

    def emit(record: memoryview, leaf: bytes | None) -> None:
        if place == "emit" and record[0] == 7:
            raise ValueError(7)
        emitted.append(record[0])

    pipeline = Pipeline(Failing(), SIZE, emit, hashed=False, threads=threads)

    def give() -> None:
        for index in range(200):
            pipeline.plain[:] = bytes(SIZE)
            pipeline.put(index, False, [pipeline.plain])

    with pytest.raises(ValueError, match="7"):
        give()
    if threads > 1:
        with pytest.raises(ValueError, match="7"):
            pipeline.settle()
    pipeline.close()
    assert emitted == list(range(len(emitted))), "nothing behind what failed"
    assert len(emitted) <= 7


def test_threads_end_when_it_is_closed() -> None:
    before = set(threading.enumerate())
    pipeline = Pipeline(Slow(), SIZE, lambda record, leaf: None, hashed=False, threads=3)
    assert set(threading.enumerate()) == before, "none before there is something to seal"
    for index in range(20):
        pipeline.put(index, False, [memoryview(bytes(SIZE))])
    assert 1 <= len(set(threading.enumerate()) - before) <= 2, "beside the caller's"
    pipeline.close()
    pipeline.close()
    assert set(threading.enumerate()) == before


def test_it_ends_though_the_caller_was_interrupted_while_it_emitted() -> None:
    """Then nobody emits any more, and all buffers wait for it."""
    pipeline = Pipeline(Slow(), SIZE, lambda record, leaf: None, hashed=False, threads=3)
    with pipeline._lock:
        pipeline._emitting = True
    for index in range(40):
        pipeline.put(index, False, [memoryview(bytes(SIZE))])
    ending = threading.Thread(target=pipeline.close, daemon=True)
    ending.start()
    ending.join(10)
    assert not ending.is_alive()


def test_an_interrupt_while_the_caller_seals_comes_out_of_that_put() -> None:
    class Interrupted(Slow):
        def seal(self, index: int, last: bool, parts: Sequence[memoryview], record: memoryview) -> None:
            super().seal(index, last, parts, record)
            if threading.current_thread() is threading.main_thread():
                interrupted.append(index)
                raise KeyboardInterrupt

    interrupted: list[int] = []
    pipeline = Pipeline(Interrupted(), SIZE, lambda record, leaf: time.sleep(0.001), hashed=False, threads=2)

    def give() -> None:
        for index in range(5000):
            assert not interrupted
            pipeline.put(index, False, [pipeline.plain])

    with pytest.raises(KeyboardInterrupt):
        give()
    pipeline.close()


def test_a_pipeline_that_was_closed_begins_no_thread() -> None:
    """Nobody would end it."""
    before = threading.active_count()
    pipeline = Pipeline(Slow(), SIZE, lambda record, leaf: None, hashed=False, threads=3)
    pipeline.close()
    for index in range(3):
        with pytest.raises(RuntimeError, match="closed"):
            pipeline.put(index, False, [memoryview(b"x")])
    assert threading.active_count() == before


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("started", [True, False])
def test_an_interrupt_while_a_thread_starts_leaves_none_behind(
    at: int, started: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was started and unknown, took the sign to end that was another's, and `close` waited for that one for ever."""
    before, count, start = set(threading.enumerate()), 0, threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        nonlocal count
        count += 1
        if started or count != at:
            start(thread)
        if count == at:
            raise KeyboardInterrupt

    pipeline = Pipeline(Slow(), SIZE, lambda record, leaf: None, hashed=False, threads=3)
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    for index in range(at - 1):
        pipeline.put(index, False, [memoryview(b"x")])
    with pytest.raises(KeyboardInterrupt):
        pipeline.put(at - 1, False, [memoryview(b"x")])
    pipeline.close(patience=5)
    assert count == at
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize("own", [True, False])
def test_who_waits_is_told_of_a_close(own: bool) -> None:
    """It waited for what was forgotten, and `close` for a thread whose sign to end it had taken."""
    before, gate, entered = set(threading.enumerate()), threading.Event(), threading.Event()

    def emit(record: memoryview, leaf: bytes | None) -> None:
        entered.set()
        assert gate.wait(10)

    pipeline = Pipeline(Slow(), SIZE, emit, hashed=False, threads=3)
    errors: list[BaseException] = []

    def give() -> None:
        try:
            for index in range(500):
                pipeline.put(index, False, [pipeline.plain if own else memoryview(b"x")])
                assert entered.wait(10)  # by another thread, which keeps all records that are ready
        except RuntimeError as error:
            errors.append(error)

    giver = threading.Thread(target=give, daemon=True)
    giver.start()
    time.sleep(0.1)
    closer = threading.Thread(target=pipeline.close, daemon=True)
    closer.start()
    time.sleep(0.1)
    gate.set()
    for each in (closer, giver):
        each.join(5)
    assert [str(error) for error in errors] == ["a pipeline that was closed"]
    assert set(threading.enumerate()) == before

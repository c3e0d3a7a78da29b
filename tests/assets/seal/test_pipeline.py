"""Threads that seal: in order, with few buffers, and no byte read after the caller was told so."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from vambrace.assets.seal.pipeline import Pipeline

SIZE = 64


class Slow:
    """A cipher that waits for a gate, and copies."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.threads: set[int] = set()

    def seal(self, index: int, last: bool, plain: memoryview, record: memoryview) -> None:
        assert self.gate.wait(10)
        self.threads.add(threading.get_ident())
        record[:] = bytes([index % 256, last]) + bytes(18) + plain


def run(threads: int, cipher: Any, count: int) -> list[bytes]:
    found: list[bytes] = []
    pipeline = Pipeline(cipher, SIZE, lambda record, leaf: found.append(bytes(record)), hashed=False, threads=threads)
    for index in range(count):
        pipeline.plain[:] = bytes([index % 256]) * SIZE
        pipeline.put(index, index == count - 1, pipeline.plain[: SIZE - index % 3])
    pipeline.drain()
    pipeline.close()
    pipeline.close()
    return found


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_order(threads: int) -> None:
    found = run(threads, Slow(), 300)
    assert [record[0] for record in found] == [index % 256 for index in range(300)]
    assert [len(record) for record in found] == [SIZE + 20 - index % 3 for index in range(300)]
    assert all(set(record[20:]) == {index % 256} for index, record in enumerate(found))


def test_one_thread_is_the_callers_own() -> None:
    cipher = Slow()
    run(1, cipher, 5)
    assert cipher.threads == {threading.get_ident()}


def test_settled_is_not_read_any_more() -> None:
    cipher, found = Slow(), []
    pipeline = Pipeline(cipher, SIZE, lambda record, leaf: found.append(bytes(record[20:])), hashed=False, threads=2)
    mine = bytearray(b"a" * SIZE)
    cipher.gate.clear()
    pipeline.put(0, False, memoryview(mine))
    threading.Timer(0.05, cipher.gate.set).start()
    pipeline.settle()
    mine[:] = b"b" * SIZE
    pipeline.drain()
    pipeline.close()
    assert found == [b"a" * SIZE]


def test_few_buffers() -> None:
    cipher, buffers = Slow(), set()
    pipeline = Pipeline(cipher, SIZE, lambda record, leaf: None, hashed=False, threads=3)
    for index in range(100):
        buffers.add(id(pipeline._slot))
        pipeline.put(index, False, pipeline.plain)
    pipeline.drain()
    pipeline.close()
    assert len(buffers) <= 5


@pytest.mark.parametrize("threads", [1, 3])
def test_errors_come_out(threads: int) -> None:
    class Failing(Slow):
        def seal(self, index: int, last: bool, plain: memoryview, record: memoryview) -> None:
            raise ValueError(index)

    with pytest.raises(ValueError, match="0"):
        run(threads, Failing(), 20)

"""Chunks sealed on several threads, written in their order by the thread that fills them.

Holds `threads` + 2 chunks in memory, whatever passes through; with one thread a single one.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING

from vambrace.assets.seal import merkle
from vambrace.assets.seal.chunks import OVERHEAD

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from vambrace.assets.seal.chunks import ChunkCipher

__all__ = ["Pipeline"]


class Pipeline:
    """From plain chunks to records.

    Args:
        cipher: of the file.
        chunk_size: plain bytes in a chunk.
        emit: takes every record in order, with its leaf; must be done with the record when it returns.
        hashed: whether leaves are wanted; else `emit` gets None.
        threads: how many seal; 1: the caller's own.
    """

    def __init__(
        self,
        cipher: ChunkCipher,
        chunk_size: int,
        emit: Callable[[memoryview, bytes | None], None],
        *,
        hashed: bool,
        threads: int,
    ) -> None:
        self._cipher = cipher
        self._emit = emit
        self._hashed = hashed
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._slot = _Slot(chunk_size)
        self._free = [_Slot(chunk_size) for _ in range(threads + 1)] if threads > 1 else []
        self._waiting: deque[tuple[Future[bytes | None], _Slot, int]] = deque()

    @property
    def plain(self) -> memoryview:
        """Room for one chunk, to be filled before the next `put`; a different one after it."""
        return self._slot.plain

    def put(self, index: int, last: bool, plain: memoryview) -> None:
        """Seal chunk `index`; `plain` stays as it is until `settle`, unless it is the start of `self.plain`."""
        slot, size = self._slot, len(plain)
        if self._pool is None:
            self._emit(slot.record[: size + OVERHEAD], self._seal(index, last, plain, slot))
            return
        self._waiting.append((self._pool.submit(self._seal, index, last, plain, slot), slot, size))
        if not self._free:
            self._write_oldest()
        self._slot = self._free.pop()

    def settle(self) -> None:
        """Return when no thread reads anything that was given to `put`."""
        for future, _, _ in self._waiting:
            future.result()

    def drain(self) -> None:
        """Return when everything has been emitted."""
        while self._waiting:
            self._write_oldest()

    def close(self) -> None:
        """End the threads; what was not drained is forgotten. Twice is fine."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _write_oldest(self) -> None:
        future, slot, size = self._waiting.popleft()
        self._emit(slot.record[: size + OVERHEAD], future.result())
        self._free.append(slot)

    def _seal(self, index: int, last: bool, plain: memoryview, slot: _Slot) -> bytes | None:
        record = slot.record[: len(plain) + OVERHEAD]
        self._cipher.seal(index, last, plain, record)
        return merkle.leaf(record) if self._hashed else None


class _Slot:
    """The buffers of one chunk, made when they are needed."""

    def __init__(self, chunk_size: int) -> None:
        self._chunk_size = chunk_size

    @cached_property
    def plain(self) -> memoryview:
        return memoryview(bytearray(self._chunk_size))

    @cached_property
    def record(self) -> memoryview:
        return memoryview(bytearray(self._chunk_size + OVERHEAD))

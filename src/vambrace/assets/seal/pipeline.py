"""Chunks sealed on several threads and written in their order, each by whichever thread is free when its turn comes.

Nobody hands chunks back: who has sealed one writes it if it is its turn, and those that are ready behind it, while the
others go on sealing. The caller's thread is one of them, whenever it would have to wait. Where records stay, a thread
gets several neighbours at once, a run; else each chunk is one. Memory is for `threads` + 2 records and as many plain
chunks, whatever passes through, with one thread for a single one of each; and for what was given and is not sealed yet,
at most 32 MiB or `threads` + 2 runs.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from vambrace.assets.seal import merkle
from vambrace.assets.seal.chunks import OVERHEAD

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vambrace.assets.seal.chunks import ChunkCipher

    _Job = Callable[[memoryview], None]
    _Plain = tuple[int, bool, Sequence[memoryview], int, memoryview | None]
    _Sealed = tuple[memoryview, bytes | None]

__all__ = ["Pipeline"]

_AHEAD = 2**25  # bytes that wait for a thread, or for their turn
_RUN = 2**22  # bytes of a run


class Pipeline:
    """From plain chunks to records.

    Args:
        cipher: of the file.
        chunk_size: plain bytes in a chunk.
        emit: takes every record in order, with its leaf, one at a time, from any of the threads; must be done with the
            record when it returns.
        hashed: whether leaves are wanted; else `emit` gets None.
        threads: how many seal; 1: the caller's own.
        room: gives so many bytes for the next record, in order, which stays there; None: records are only passing.
    """

    def __init__(
        self,
        cipher: ChunkCipher,
        chunk_size: int,
        emit: Callable[[memoryview, bytes | None], None],
        *,
        hashed: bool,
        threads: int,
        room: Callable[[int], memoryview] | None = None,
    ) -> None:
        self._cipher = cipher
        self._emit = emit
        self._hashed = hashed
        self._room = room
        self._plain = _buffer(chunk_size)
        self._record = _buffer(chunk_size + OVERHEAD)
        self._crew = _Crew(threads, chunk_size) if threads > 1 else None
        # One step of the queues for several chunks; and seldom do two threads begin in the same fresh page.
        self._neighbours = 1 if room is None else max(1, _RUN // chunk_size)
        self._ahead = max(threads + 2, min(64, _AHEAD // chunk_size // self._neighbours))
        self._run: list[_Plain] = []
        self._given = 0
        self._lock = threading.Lock()
        self._come = threading.Condition(self._lock)  # the turn that the caller waits for
        # What follows changes under the lock only.
        self._turn = 0  # of the run that is emitted next; they are counted as they are given
        self._awaited = 0
        self._ready: dict[int, tuple[list[_Sealed], memoryview]] = {}
        self._emitting = self._closed = False
        self._failed: BaseException | None = None

    @property
    def plain(self) -> memoryview:
        """Room for one chunk, to be filled before the next `put`; a different one after it."""
        return self._plain

    def put(self, index: int, last: bool, parts: Sequence[memoryview]) -> None:
        """Seal chunk `index`: `parts`, one behind the other, which stay as they are until `settle`.

        Where the first of them is the start of `self.plain`, that is no longer the caller's.

        Raises:
            BaseException: what sealing or emitting this chunk, or one before, has raised.
        """
        self._raise()
        size = sum(map(len, parts)) + OVERHEAD
        record = None if self._room is None else self._room(size)
        if self._crew is None:
            self._emit(*self._sealed(index, last, parts, self._record[:size] if record is None else record))
            return
        self._run.append((index, last, parts, size, record))
        filled = None
        if parts[0].obj is self._plain.obj:
            filled, self._plain = self._plain, self._crew.take_plain()
        if filled is not None or len(self._run) == self._neighbours:
            run, self._run = self._run, []
            self._hand_over(self._crew, run, filled)
        self._raise()

    def settle(self) -> None:
        """Return when everything has been emitted, and no thread reads anything that was given to `put`.

        Raises:
            BaseException: as `put`.
        """
        if self._crew is not None:
            run, self._run = self._run, []
            # One by one, so that all threads have something to do to the end.
            for each in run:
                self._hand_over(self._crew, [each])
        self._wait(self._given)
        self._raise()

    def close(self, *, patience: float | None = None) -> None:
        """End the threads; what has not been emitted is forgotten. Twice is fine.

        A `put` or `settle` that waits meanwhile in another thread raises.

        Args:
            patience: seconds to wait for each thread that is still at something; None: until it is done.
        """
        if self._crew is not None:
            self._fail(RuntimeError("a pipeline that was closed"))
            with self._lock:
                self._closed = True
                self._come.notify()
            self._crew.end(patience)
            self._run = []

    def _hand_over(self, crew: _Crew, run: list[_Plain], filled: memoryview | None = None) -> None:
        while self._given - self._turn >= self._ahead:
            # One for one, where there are some: who gives many at once keeps the others from the interpreter. Where the
            # caller has to wait, half of them, so that it is seldom woken.
            if not crew.help():
                self._wait(self._given - self._ahead // 2)
        crew.submit(functools.partial(self._work, crew, self._given, run, filled))
        self._given += 1

    def _wait(self, turn: int) -> None:
        while self._crew is not None and self._turn < turn and self._crew.help():
            pass
        with self._lock:
            self._awaited = turn
            while self._turn < turn and not self._closed:
                self._come.wait()
        if self._closed:
            self._raise()

    def _raise(self) -> None:
        if self._failed is not None:
            raise self._failed

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._failed = self._failed or error

    def _sealed(self, index: int, last: bool, parts: Sequence[memoryview], record: memoryview) -> _Sealed:
        self._cipher.seal(index, last, parts, record)
        return record, merkle.leaf(record) if self._hashed else None

    def _work(self, crew: _Crew, turn: int, run: list[_Plain], filled: memoryview | None, room: memoryview) -> None:
        sealed: list[_Sealed] = []
        try:
            if self._failed is None:
                sealed = [
                    self._sealed(index, last, parts, room[:size] if record is None else record)
                    for index, last, parts, size, record in run
                ]
        except BaseException as error:  # noqa: BLE001  raised by `put` or `settle`, in the thread that asked
            self._fail(error)
        if filled is not None:
            crew.plain.put(filled)
        with self._lock:
            self._ready[turn] = sealed, room
            following = None if self._emitting else self._following(0)
        while following is not None:
            sealed, room = following
            try:
                if self._failed is None:
                    for record, leaf in sealed:
                        self._emit(record, leaf)
            except BaseException as error:  # noqa: BLE001  as above
                self._fail(error)
            crew.records.put(room)
            with self._lock:
                following = self._following(1)

    def _following(self, done: int) -> tuple[list[_Sealed], memoryview] | None:
        """What to emit after `done` more have been; None: it is not ready."""
        self._turn += done
        if self._turn == self._awaited:
            self._come.notify()
        following = self._ready.pop(self._turn, None)
        self._emitting = following is not None
        return following


class _Crew:
    """Threads that seal beside the caller's, and the buffers that they and it pass around.

    An idle thread knows of its queues only, so that a pipeline that is forgotten is collected, and closed.
    """

    def __init__(self, threads: int, chunk_size: int) -> None:
        self._most = threads - 1
        self._threads: list[threading.Thread] = []
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self.plain: SimpleQueue[memoryview] = SimpleQueue()
        self.records: SimpleQueue[memoryview] = SimpleQueue()
        for _ in range(threads + 1):
            self.plain.put(_buffer(chunk_size))
        for _ in range(threads + 2):
            self.records.put(_buffer(chunk_size + OVERHEAD))

    def submit(self, job: _Job) -> None:
        """Have `job` done, by a new thread while there are fewer than may be."""
        self._jobs.put(job)
        if len(self._threads) < self._most:
            thread = threading.Thread(target=_serve, args=(self._jobs, self.records), daemon=True)
            self._threads.append(thread)  # before it starts: an interrupt may come while it does
            thread.start()

    def help(self) -> bool:
        """Do what would be done next, in the thread that asks; whether there was anything."""
        try:
            room = self.records.get_nowait()
        except Empty:
            return False
        try:
            job = self._jobs.get_nowait()
        except Empty:
            self.records.put(room)
            return False
        if job is None:
            self._jobs.put(None)  # the sign to end, which is one of the threads'
            self.records.put(room)
            return False
        job(room)
        return True

    def take_plain(self) -> memoryview:
        """Room for a plain chunk, when there is some."""
        while self.plain.empty() and self.help():
            pass
        return self.plain.get()

    def end(self, patience: float | None) -> None:
        """Return when all threads have ended, each with what it is at; what has not been begun is forgotten."""
        self._most = 0
        with contextlib.suppress(Empty):
            while True:
                self._jobs.get_nowait()
        for _ in self._threads:
            self._jobs.put(None)
            self.records.put(memoryview(b""))  # where an interrupt kept what came before from giving theirs back
        for thread in self._threads:
            # One that has not started finds nothing to do, and the last who knows of a pipeline that is forgotten may
            # be one of its threads.
            with contextlib.suppress(RuntimeError):
                thread.join(patience)
        self._threads.clear()
        self.plain.put(memoryview(b""))  # for who waits for one that was forgotten


def _serve(jobs: SimpleQueue[_Job | None], records: SimpleQueue[memoryview]) -> None:
    while True:
        # Room before a job: of the jobs that were taken, the first never waits for what the others hold.
        room = records.get()
        job = jobs.get()
        if job is None:
            records.put(room)
            return
        job(room)
        del job


def _buffer(size: int) -> memoryview:
    """Room that takes memory only where it is used."""
    return memoryview(cast("Any", np.empty(size, np.uint8)))

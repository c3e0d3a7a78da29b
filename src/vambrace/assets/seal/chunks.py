"""The chunks of a sealed file: where they stand, and one cipher for all. See docs/formats/sealed-v1.md, "Chunks".

    >>> layout = Layout(chunk_size=65_536, stream=65_537)
    >>> layout.count, layout.plain(1), layout.offset(1), layout.end
    (2, 1, 131092, 131113)

STREAM (Hoang, Reyhanitabar, Rogaway, Vizar: Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance,
2015): the nonce holds the number of the chunk and whether it is the last, so none can be moved, left out or added
behind. Where a tag does not verify, what OpenSSL has decrypted is overwritten with zeros.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag

from vambrace.assets.seal.header import HEADER_BYTES
from vambrace.assets.seal.refusals import damaged_chunk
from vambrace.assets.seal.suites import TAG_BYTES, aead
from vambrace.core.options import require

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vambrace.assets.seal.header import Fixed
    from vambrace.assets.seal.schedule import FileKeys

__all__ = ["ChunkCipher", "FRAME_BYTES", "Layout", "MOST_CHUNKS", "MOST_THREADS", "OVERHEAD", "check_threads", "spread"]

FRAME_BYTES: Final = 4
OVERHEAD: Final = FRAME_BYTES + TAG_BYTES
"""Bytes that a chunk has in the file beside its plain ones."""

MOST_CHUNKS: Final = 2**32

MOST_THREADS: Final = 256
"""More than that only take memory: each has a few chunks, and the cipher is as fast as memory long before."""

_LAST: Final = 2**31


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the chunks of a whole file stand.

    Attributes:
        chunk_size: plain bytes in every chunk but the last.
        stream: plain bytes in all of them, padding included.
    """

    chunk_size: int
    stream: int

    @property
    def count(self) -> int:
        """How many chunks there are; at least 1."""
        return max(1, -(-self.stream // self.chunk_size))

    @property
    def end(self) -> int:
        """Offset in the file of what follows the last chunk."""
        return HEADER_BYTES + self.stream + self.count * OVERHEAD

    def plain(self, index: int) -> int:
        """Plain bytes in chunk `index`."""
        return min(self.chunk_size, self.stream - index * self.chunk_size)

    def offset(self, index: int) -> int:
        """Where the frame of chunk `index` stands in the file."""
        return HEADER_BYTES + index * (self.chunk_size + OVERHEAD)


class ChunkCipher:
    """Seals and opens the chunks of one file. Several threads may use one.

    A *record* is a chunk as it stands in the file: frame, ciphertext, tag; 20 bytes more than its plain bytes.
    """

    def __init__(self, keys: FileKeys, fixed: Fixed) -> None:
        self._cipher = aead(fixed.suite, keys.data)
        self._nonce = keys.nonce
        self._binding = fixed.binding
        self._chunk_size = fixed.chunk_size

    def seal(self, index: int, last: bool, parts: Sequence[memoryview], record: memoryview) -> None:
        """Write chunk `index`, whose bytes are `parts` one behind the other, into `record`, which has its size."""
        size = len(record) - OVERHEAD
        nonce, sealed = self._at(index, last), record[FRAME_BYTES:]
        if len(parts) == 1:
            self._cipher.seal_into(nonce, parts[0], self._binding, sealed)
        else:
            self._cipher.seal_parts(nonce, parts, self._binding, sealed)
        # Last, for it is the interpreter that writes it: to touch fresh memory first would make all threads wait.
        record[:FRAME_BYTES] = (size | _LAST if last else size).to_bytes(FRAME_BYTES, "little")

    def open(self, index: int, last: bool, record: memoryview, out: memoryview) -> None:
        """Write the plain bytes of chunk `index` into `out`, which has exactly their size.

        Args:
            index: from 0.
            last: whether it has to be the last one.
            record: the chunk as it stands in the file.
            out: takes the plain bytes; gets none, or zeros, where the chunk is refused.

        Raises:
            ArtifactRefused: E705, when the chunk is not what was sealed there.
        """
        size = len(record) - OVERHEAD
        if bytes(record[:FRAME_BYTES]) != (size | _LAST if last else size).to_bytes(FRAME_BYTES, "little"):
            raise damaged_chunk(index, "has another frame than its place in the file asks for")
        try:
            self._cipher.open_into(self._at(index, last), record[FRAME_BYTES:], self._binding, out)
        except InvalidTag:
            raise damaged_chunk(index, "is not authentic: changed, moved, or of another file") from None

    def frame(self, index: int, frame: bytes) -> tuple[int, bool]:
        """What the frame of chunk `index` in a stream announces: plain bytes, and whether it is the last.

        Raises:
            ArtifactRefused: E705, for a frame that no chunk in this place has.
        """
        word = int.from_bytes(frame, "little")
        size, last = word & (_LAST - 1), word >= _LAST
        if size > self._chunk_size or (size < self._chunk_size and not last) or (not size and index):
            raise damaged_chunk(index, f"announces {size} bytes" + (" and that it is the last" if last else ""))
        if index >= MOST_CHUNKS or (index == MOST_CHUNKS - 1 and not last):
            raise damaged_chunk(index, "is one more than a file can have")
        return size, last

    def _at(self, index: int, last: bool) -> bytes:
        return self._nonce + index.to_bytes(4, "big") + (b"\x01" if last else b"\x00")


def check_threads(threads: int) -> int:
    """The same number, where so many threads can be asked for.

    Raises:
        ConfigError: E712, for less than 1 or more than `MOST_THREADS`.
    """
    require(
        1 <= threads <= MOST_THREADS,
        code="E712",
        seen=f"{threads} threads",
        expected=f"1 to {MOST_THREADS}",
        fix="say how many work at once; more than there are processors gain nothing",
    )
    return threads


def spread(work: Callable[[int], None], indices: range, threads: int) -> None:
    """Call `work` once for every index, in rising order, on up to `threads` threads; this one is one of them.

    Raises what `work` raised for the smallest index, after all have stopped; indices behind it may be left out.
    """
    if threads <= 1 or len(indices) <= 1:
        for index in indices:
            work(index)
        return
    # `next` on a counter is one step of the interpreter: no two threads get the same index.
    following, stop = itertools.count(indices.start), threading.Event()
    failed: dict[int, BaseException] = {}

    def run() -> None:
        while not stop.is_set() and (index := next(following)) < indices.stop:
            try:
                work(index)
            except BaseException as error:  # noqa: BLE001  raised below, in the thread that asked
                failed[index] = error
                stop.set()

    helpers = min(threads, len(indices)) - 1
    with ThreadPoolExecutor(helpers) as pool:
        for _ in range(helpers):
            pool.submit(run)
        run()
    if failed:
        raise failed[min(failed)]

"""The checks of a sealed file that comes in order: chunk by chunk, then the trailer, then the end.

`contents` lets out plain bytes that were verified, and the last of them only when all that follows has been, too.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING, Final

from vambrace.assets.seal import merkle, statement
from vambrace.assets.seal.chunks import FRAME_BYTES, OVERHEAD, ChunkCipher
from vambrace.assets.seal.padding import is_zero
from vambrace.assets.seal.refusals import added, contradictory, cut_short, damaged_chunk, damaged_trailer
from vambrace.assets.seal.source import fill
from vambrace.assets.seal.statement import MOST_BYTES, Statement
from vambrace.assets.seal.trailer import FOOT_BYTES, FOOT_MAGIC, Foot, TrailerMac

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator

    from vambrace.assets.seal.opening import Opened
    from vambrace.assets.seal.source import Stream
    from vambrace.errors import ArtifactRefused

__all__ = ["Incoming", "read_trailer"]

_PIECE: Final = 2**20


class Incoming:
    """What follows the header of one stream.

    Args:
        stream: stands behind the header.
        opened: the header.
        signers: public keys, one of which must have signed; empty: nobody has to.
        hashed: whether a signature is verified.

    Attributes:
        count: chunks so far.
        total: plain bytes in them.
        signed: whether the file has a signature; None until the end has been verified.
        statement: who signed, where that was verified.
    """

    def __init__(self, stream: Stream, opened: Opened, *, signers: Collection[bytes], hashed: bool) -> None:
        self.count = 0
        self.total = 0
        self.signed: bool | None = None
        self.statement: Statement | None = None
        self._stream = stream
        self._opened = opened
        self._signers = signers
        self._hashed = hashed
        self._once = secrets.token_bytes(32)  # for what is kept: the temporary file may be in the hands of a recipient
        self._cipher = ChunkCipher(opened.keys, opened.header.fixed)

    def contents(self, keep: Callable[[memoryview], object] | None = None) -> Generator[memoryview]:
        """Plain bytes of the content, each part valid until the next is asked for.

        Args:
            keep: takes every chunk as it stands in the file, when it has been verified, and what `again` knows it by;
                where a signature is verified.
        """
        chunk_size, size = self._opened.header.fixed.chunk_size, self._opened.description.size
        record = memoryview(bytearray(chunk_size + OVERHEAD))
        plain = memoryview(bytearray(chunk_size))
        held = memoryview(b"")
        tree, leaves, done, last = merkle.Tree(), hashlib.sha256(), 0, False
        while not last:
            last, chunk = self._chunk(record, plain)
            sealed = record[: len(chunk) + OVERHEAD]
            if self._hashed:
                tree.add(leaf := merkle.leaf(sealed))
                leaves.update(leaf)
                if keep:
                    keep(sealed)
                    keep(memoryview(self._mark(leaf)))
            content = chunk if size is None else chunk[: max(0, size - done)]
            done += len(content)
            if not is_zero(chunk[len(content) :]):
                raise contradictory("padding that is not zero", "zeros behind the content")
            if not last and done != size:
                yield content
            elif content:
                # Whoever stops reading after the last byte shall have been told what is wrong behind it.
                held, plain = content, plain if last else memoryview(bytearray(chunk_size))
        if size is not None and done < size:
            raise contradictory(f"{done} bytes of content", f"{size}, as the description says")
        self._end(tree.root(), leaves.digest())
        if held:
            yield held

    def again(self, kept: Stream) -> Generator[memoryview]:
        """The same parts from chunks that `contents` has verified and `keep` has stored, one after the other."""
        chunk_size = self._opened.header.fixed.chunk_size
        record = memoryview(bytearray(chunk_size + OVERHEAD))
        plain = memoryview(bytearray(chunk_size))
        left = self.total if self._opened.description.size is None else self._opened.description.size
        self._stream, self.count, self.total = kept, 0, 0
        while left:
            _, chunk = self._chunk(record, plain)
            mark = memoryview(bytearray(merkle.SIZE))
            fill(kept, mark)
            if not hmac.compare_digest(mark, self._mark(merkle.leaf(record[: len(chunk) + OVERHEAD]))):
                raise damaged_chunk(self.count - 1, "has changed in the temporary file")
            yield chunk[:left]
            left -= min(left, len(chunk))

    def _mark(self, leaf: bytes) -> bytes:
        return hmac.digest(self._once, leaf, "sha256")

    def _chunk(self, record: memoryview, plain: memoryview) -> tuple[bool, memoryview]:
        """The next chunk: whether it is the last, and its plain bytes, verified."""
        index = self.count
        got = fill(self._stream, record[:FRAME_BYTES])
        size, last = self._cipher.frame(index, bytes(record[:FRAME_BYTES])) if got == FRAME_BYTES else (0, False)
        if got == FRAME_BYTES:
            got += fill(self._stream, record[FRAME_BYTES : size + OVERHEAD])
        if got < size + OVERHEAD:
            raise cut_short(f"the end {'in' if got else 'before'} chunk {index}")
        self._cipher.open(index, last, record[: size + OVERHEAD], plain[:size])
        self.count, self.total = index + 1, self.total + size
        return last, plain[:size]

    def _end(self, root: bytes, leaves: bytes) -> None:
        foot, said, there = read_trailer(self._stream, self._opened, self.count, self.total)
        if (foot.chunks, foot.stream) != (self.count, self.total):
            raise contradictory(
                f"a foot of {foot.chunks} chunks and {foot.stream} bytes", f"{self.count} and {self.total}"
            )
        if fault := foot.fault(self._opened.header.fixed.chunk_size):
            raise contradictory(f"a foot of {fault}", "numbers that fit each other")
        if self._hashed and foot.leaves:
            if there != leaves:
                raise damaged_trailer("leaves that are not those of the chunks")
            self.statement = statement.check(said, self._opened.header.fixed, self.count, self.total, root)
        statement.demand(self.statement, self._signers)
        self.signed = bool(foot.leaves)


def read_trailer(stream: Stream, opened: Opened, count: int, total: int) -> tuple[Foot, bytes, bytes]:
    """Read and authenticate the trailer, and see that nothing follows.

    Args:
        stream: stands behind the last chunk.
        opened: the header.
        count: chunks that were met.
        total: plain bytes in them.

    Returns:
        the foot, the statement, and SHA-256 of the leaves, each as it stands there.

    Raises:
        ArtifactRefused: E706, E707, E708.
    """
    rest = _Rest(stream)
    mac = TrailerMac(opened.keys, opened.header.fixed.binding)
    start = rest.take(FOOT_BYTES)
    foot = Foot.parse(start) if len(start) == FOOT_BYTES else None
    if foot and not foot.leaves and not foot.statement and mac.verified(foot):
        if rest.take(1):
            raise added("bytes after the foot")
        return foot, b"", hashlib.sha256().digest()
    rest.give_back(start)
    leaves, left, end = hashlib.sha256(), merkle.SIZE * count, b""
    while left and (piece := rest.take(min(left, _PIECE))):
        mac.update(piece)
        leaves.update(piece)
        left, end = left - len(piece), (end + piece)[-FOOT_BYTES:]
    tail = rest.take(MOST_BYTES + FOOT_BYTES + 1)
    at = tail.find(FOOT_MAGIC)
    while at >= 0:
        foot = Foot.parse(tail[at : at + FOOT_BYTES]) if at + FOOT_BYTES <= len(tail) else None
        if foot and foot.statement == at and foot.leaves == merkle.SIZE * count and mac.verified(foot, tail[:at]):
            if len(tail) > at + FOOT_BYTES:
                raise added("bytes after the foot")
            return foot, tail[:at], leaves.digest()
        at = tail.find(FOOT_MAGIC, at + 1)
    raise _no_foot((end + tail)[-FOOT_BYTES:], count, total)


class _Rest:
    """What is left of a stream, in pieces that are bounded by who asks."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._back = b""

    def take(self, most: int) -> bytes:
        """The next `most` bytes; fewer at the end."""
        data, self._back = self._back[:most], self._back[most:]
        more = memoryview(bytearray(most - len(data)))
        return data + bytes(more[: fill(self._stream, more)])

    def give_back(self, data: bytes) -> None:
        """Let `data` be taken once more."""
        self._back = data


def _no_foot(end: bytes, count: int, total: int) -> ArtifactRefused:
    """Damage, where the last bytes are a foot of these chunks but for its magic or HMAC; cut short otherwise."""
    if len(end) == FOOT_BYTES:
        foot = Foot.parse(FOOT_MAGIC + end[len(FOOT_MAGIC) :])
        if end.startswith(FOOT_MAGIC) or (foot and (foot.chunks, foot.stream) == (count, total)):
            return damaged_trailer("a trailer that is not authentic")
    return cut_short("a trailer without its foot")

"""Sealed files are written in one pass, to a place on disk or into a stream, with few chunks in memory.

    with Writer("net.sealed", ["team.pub"], size=size) as writer:
        writer.write(data)

Every file has a new key and salt, and its nonces count chunks, so that none is used twice. A file on disk appears under
its name when it is whole and durable; every reader refuses what an error leaves in a stream. Format: sealed-v1.md.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Self, cast

from vambrace.assets.seal import header as headers
from vambrace.assets.seal import merkle
from vambrace.assets.seal.chunks import MOST_CHUNKS, ChunkCipher, Layout, check_threads
from vambrace.assets.seal.description import Description, fault, seal_private
from vambrace.assets.seal.header import CHUNK_SIZES, Fixed, Header
from vambrace.assets.seal.memory import Memory
from vambrace.assets.seal.padding import padded
from vambrace.assets.seal.pipeline import Pipeline
from vambrace.assets.seal.recipients import further, recipients_of
from vambrace.assets.seal.replacing import Replacement
from vambrace.assets.seal.schedule import FileKeys, new_file_key, new_salt
from vambrace.assets.seal.sink import put
from vambrace.assets.seal.source import next_bytes
from vambrace.assets.seal.statement import MOST_BYTES
from vambrace.assets.seal.suites import Suite
from vambrace.assets.seal.trailer import FOOT_BYTES, Foot, TrailerMac
from vambrace.core.disk import drop, spooling
from vambrace.core.options import require

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from types import TracebackType

    from cryptography.utils import Buffer

    from vambrace.assets.seal.description import Content
    from vambrace.assets.seal.recipients import Recipient
    from vambrace.assets.seal.sink import Sink

__all__ = ["Writer"]

_ZEROS: Final = bytes(2**16)
_LEAVES_IN_MEMORY: Final = 4 * 2**20  # bytes; more of them go to a temporary file: they are hashes of ciphertext
_PIECE: Final = 2**20
_AHEAD: Final = 2**12
_MOST_PARTS: Final = 256  # of a chunk; more of them take more memory than the chunk
_PATIENCE: Final = 1.0  # seconds


class Writer:
    """One sealed file in the making: `write` the content, then `finish`, or leave a `with` block without an error.

    Args:
        target: a path, whose file is replaced when the new one is whole; or a stream (see `Sink`); or a `Memory`.
        recipients: who can open it, 1 to 64; see `seal.save`.
        content: what the bytes are.
        size: bytes of the content, where they are known; exactly as many have to be written.
        pad: hide the exact length behind zeros, up to 12 % (Padme); needs `size`.
        metadata: JSON data for those who can open the file.
        public: JSON data for everybody; authenticated, not secret.
        suite: the AEAD.
        chunk_size: bytes that are decrypted as one; a power of two, 65,536 to 16,777,216.
        sign: makes the statement of fixed part, chunks, bytes of the stream and Merkle root (`statement.hook`).
        threads: how many encrypt, 1 to 256.
        like: descriptor of a file whose owner and permissions a file on disk gets; None: those of any new file.
        fresh: replace no file, also not one that appears meanwhile.

    Attributes:
        header: what stands at the beginning of the file.
        foot: what stands at its end; None before `finish`.

    Raises:
        ConfigError: E712, for options that do not fit together; E713, when the suite is not there; E714, for
            descriptions that cannot be stored.
        FileExistsError: with `fresh`, here and by `finish`: something is at `target`.
        ResourceError: E601, when it cannot be written.
    """

    def __init__(
        self,
        target: str | os.PathLike[str] | Sink,
        recipients: Sequence[object] | object,
        *,
        content: Content = "bytes",
        size: int | None = None,
        pad: bool = False,
        metadata: Mapping[str, Any] | None = None,
        public: Mapping[str, Any] | None = None,
        suite: Suite = Suite.AES_256_GCM,
        chunk_size: int = 2**20,
        sign: Callable[[Fixed, int, int, bytes], bytes] | None = None,
        threads: int = 1,
        like: int | None = None,
        fresh: bool = False,
    ) -> None:
        _check(suite, chunk_size, size, pad, threads)
        self._keys = FileKeys(new_file_key(), salt := new_salt(), suite)
        description = Description(content=content, size=size, metadata=dict(metadata or {}))
        self.header = _header(description, public or {}, recipients_of(recipients), self._keys, salt, suite, chunk_size)
        region = headers.build(self.header, self._keys)
        cipher = ChunkCipher(self._keys, self.header.fixed)
        self.foot: Foot | None = None
        self._size = size
        self._stream = size if size is None or not pad else padded(size)
        self._chunk_size = chunk_size
        self._index = self._written = 0
        self._filled = 0  # bytes of the chunk that comes next: at the start of `_pipeline.plain`, or `_parts`
        self._parts: list[memoryview] = []
        self._sign = sign
        self._tree = merkle.Tree()
        self._leaves = tempfile.SpooledTemporaryFile(_LEAVES_IN_MEMORY) if sign else None  # noqa: SIM115  closed by _close
        self._memory = target if isinstance(target, Memory) else None
        room = self._memory.room if self._memory else None
        self._pipeline = Pipeline(cipher, chunk_size, self._emit, hashed=sign is not None, threads=threads, room=room)
        # After what may fail for lack of memory: from here on, something may be left behind.
        path = Path(target) if isinstance(target, str | os.PathLike) else None
        self._draft = Replacement(path, fresh=fresh, like=like) if path else None
        self._sink: Sink = self._draft or cast("Sink", target)
        if self._memory:
            self._memory.claim(self._keys)
        self._open = True
        try:
            if self._memory and self._stream is not None:
                layout = Layout(chunk_size=chunk_size, stream=self._stream)
                self._memory.reserve(layout.end + layout.count * merkle.SIZE + MOST_BYTES + FOOT_BYTES)
            self._put(memoryview(region))
        except BaseException:
            self.abort()
            raise

    def write(self, data: Buffer, *, kept: bool = False) -> int:
        """Seal the bytes of `data`, any contiguous buffer; how many they are.

        Args:
            data: the bytes.
            kept: that they stay as they are until `finish`, so that they need not be read before this returns.

        Raises:
            ConfigError: E715, for more than was announced or than a file can hold, or after the end.
            ResourceError: E601, when they cannot be written; the file is given up then.
        """
        view = memoryview(data)
        self._check_room(view.nbytes)
        if view.nbytes:
            try:
                self._keep(view.cast("B")) if kept else self._feed(view.cast("B"))
            except BaseException:
                self.abort()
                raise
            self._written += view.nbytes
        return view.nbytes

    def copy_from(self, stream: Any) -> int:  # noqa: ANN401  whatever has `readinto`
        """Seal what `stream.readinto` gives until it gives nothing; how many bytes that were.

        Raises:
            ConfigError, ResourceError: as `write`; E604, when it cannot be read, or has nothing yet and does not wait.
        """
        before, ahead = self._written, memoryview(bytearray(_AHEAD))
        self._gather()
        while True:
            self._check_room(0)
            # A full chunk waits for what follows, as in `_feed`.
            full = self._filled == self._chunk_size
            with self._or_none():
                got = next_bytes(stream, ahead if full else self._pipeline.plain[self._filled :])
            if not got:
                return self._written - before
            if full:
                self.write(ahead[:got])
                continue
            self._check_room(got)
            self._filled += got
            self._written += got

    def finish(self) -> None:
        """Write the last chunk and the trailer; a file on disk has its name when this returns.

        Raises:
            ConfigError: E715, for less than was announced, or after the end.
            ResourceError: E601, when it cannot be written.
        """
        self._check_room(0)
        with self._or_none():
            require(
                self._size in {None, self._written},
                code="E715",
                seen=f"{self._written} bytes of content",
                expected=f"{self._size}, as was announced",
                fix="write all of the content, or announce no size",
            )
            padding = (self._stream or self._written) - self._written
            while padding:
                self._feed(memoryview(_ZEROS)[:padding])
                padding -= min(padding, len(_ZEROS))
            stream = self._index * self._chunk_size + self._filled
            self._flush(last=True)
            self._pipeline.settle()
            self._end(stream)
            if self._draft:
                self._draft.commit()
        self._close()

    def abort(self) -> None:
        """Give the file up: on disk, nothing is left of it. After `finish`, and twice, this does nothing.

        With several threads, a stream that has not come back from `write` after a second may do so later.
        """
        if self._open:
            self._close()
            if self._draft:
                self._draft.discard()
            if self._memory:
                self._memory.clear(self._keys)  # of what was not finished, parts were perhaps never written

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()
        elif self._open or not self.foot:
            self.finish()

    def __del__(self) -> None:
        if getattr(self, "_open", False):
            self.abort()

    def _close(self) -> None:
        self._open, self._parts = False, []
        # Nobody waits for ever for a stream that takes nothing; a file must not be closed while a thread writes to it.
        self._pipeline.close(patience=None if self._draft or self._memory else _PATIENCE)
        if self._leaves:
            drop(self._leaves)

    def _check_room(self, more: int) -> None:
        most = MOST_CHUNKS * self._chunk_size if self._size is None else self._size
        if self._open and self._written + more <= most:
            return  # before words are made, and apart from `_or_none` above: tensors come by the thousand
        require(
            self._open,
            code="E715",
            seen="more content for a file that is finished or was given up",
            expected="one file for each writer",
            fix="make a new writer",
        )
        with self._or_none():
            require(
                self._written + more <= most,
                code="E715",
                seen=f"{self._written + more} bytes of content",
                expected=f"at most {most}" if self._size is None else f"{most}, as was announced",
                fix="choose larger chunks" if self._size is None else "announce the right size, or none",
            )

    def _feed(self, view: memoryview) -> None:
        whole, borrowed = self._chunk_size, False
        self._gather()
        while view:
            # A full chunk waits for what follows: only then it is known not to be the last.
            if self._filled == whole:
                self._flush(last=False)
            if not self._filled and len(view) > whole:
                self._pipeline.put(self._index, False, [view[:whole]])
                self._index, view, borrowed = self._index + 1, view[whole:], True
                continue
            taken = min(whole - self._filled, len(view))
            self._pipeline.plain[self._filled : self._filled + taken] = view[:taken]
            self._filled, view = self._filled + taken, view[taken:]
        if borrowed:
            self._pipeline.settle()

    def _keep(self, view: memoryview) -> None:
        if self._filled and not self._parts:
            self._parts.append(self._pipeline.plain[: self._filled])
        while view:
            if self._filled == self._chunk_size:
                self._flush(last=False)
            if len(self._parts) == _MOST_PARTS:
                self._gather()
                self._parts.append(self._pipeline.plain[: self._filled])
            part = view[: self._chunk_size - self._filled]
            self._parts.append(part)
            self._filled, view = self._filled + len(part), view[len(part) :]

    def _gather(self) -> None:
        """Copy the parts of the chunk that comes next to where those of other pieces go."""
        end = 0
        for part in self._parts:
            begin, end = end, end + len(part)
            self._pipeline.plain[begin:end] = part
        self._parts.clear()

    def _flush(self, *, last: bool) -> None:
        self._pipeline.put(self._index, last, self._parts or [self._pipeline.plain[: self._filled]])
        self._index, self._filled, self._parts = self._index + 1, 0, []

    def _emit(self, record: memoryview, leaf: bytes | None) -> None:
        if not self._memory:
            self._put(record)
        if leaf is not None and self._leaves:
            self._tree.add(leaf)
            with spooling():
                self._leaves.write(leaf)

    def _end(self, stream: int) -> None:
        fixed, count = self.header.fixed, self._index
        mac, statement = TrailerMac(self._keys, fixed.binding), b""
        if self._sign and self._leaves:
            statement = self._sign(fixed, count, stream, self._tree.root())
            require(
                0 < len(statement) <= MOST_BYTES,
                code="E714",
                seen=f"a signer's statement of {len(statement)} bytes",
                expected=f"1 to {MOST_BYTES}",
                fix="shorten the signer's name and role",
            )
            for piece in _pieces(self._leaves):
                mac.update(piece)
                self._put(memoryview(piece))
            mac.update(statement)
            self._put(memoryview(statement))
        foot = Foot(chunks=count, stream=stream, leaves=self._tree.count * merkle.SIZE, statement=len(statement))
        self.foot = dataclasses.replace(foot, mac=mac.finish(foot))
        self._put(memoryview(self.foot.pack()))

    def _put(self, data: memoryview) -> None:
        while data and self._open:
            data = put(self._sink, data)

    @contextlib.contextmanager
    def _or_none(self) -> Generator[None]:
        """A step after whose failure nothing is left of the file."""
        try:
            yield
        except BaseException:
            self.abort()
            raise


def _check(suite: Suite, chunk_size: int, size: int | None, pad: bool, threads: int) -> None:
    def demand(holds: bool, seen: str, expected: str) -> None:
        require(holds, code="E712", seen=seen, expected=expected, fix="change the option")

    demand(suite in set(Suite), f"suite {suite!r}", f"one of {', '.join(each.name for each in Suite)}")
    demand(chunk_size in CHUNK_SIZES, f"chunks of {chunk_size!r} bytes", f"one of {CHUNK_SIZES}")
    check_threads(threads)
    demand(size is not None or not pad, "padding of a content of unknown size", "a size, or no padding")
    if size is not None:
        stream = padded(size) if pad else size
        count = Layout(chunk_size=chunk_size, stream=stream).count
        demand(size >= 0 and count <= MOST_CHUNKS, f"{size} bytes in chunks of {chunk_size}", f"{MOST_CHUNKS} chunks")


def _pieces(leaves: IO[bytes]) -> Generator[bytes]:
    with spooling():
        leaves.seek(0)
        while piece := leaves.read(_PIECE):
            yield piece


def _header(
    description: Description,
    public: Mapping[str, Any],
    recipients: Sequence[Recipient],
    keys: FileKeys,
    salt: bytes,
    suite: Suite,
    chunk_size: int,
) -> Header:
    require(
        1 <= len(recipients) <= headers.MOST_RECIPIENTS,
        code="E712",
        seen=f"{len(recipients)} recipients",
        expected=f"1 to {headers.MOST_RECIPIENTS}",
        fix="name who shall be able to open the file",
    )
    found = fault(public)
    require(
        not found,
        code="E714",
        seen=f"a public description that cannot be stored: {found}",
        expected="text, numbers, booleans, lists and objects",
        fix="mend the description",
    )
    fixed = Fixed(suite=suite, chunk_size=chunk_size, salt=salt, commitment=keys.commit, described=bytes(32))
    private = seal_private(description, keys, suite, fixed.head)
    fixed = dataclasses.replace(fixed, described=headers.described(private, public))
    stanzas = further(recipient.wrap(keys.file_key, fixed.binding) for recipient in recipients)
    return Header(fixed=fixed, epoch=0, private=private, public=dict(public), recipients=stanzas)

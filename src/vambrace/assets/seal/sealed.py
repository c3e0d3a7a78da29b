"""A sealed file on disk, of which any part can be read without the rest.

    with Sealed.open("net.sealed", "me.key", signers="maker.pub") as sealed:
        sealed.read_into(begin, buffer)

Without `signers` what comes out is intact, and made by somebody who could seal for this recipient; who that was is not
proven. Decrypts straight into the buffer that it is given.
"""

from __future__ import annotations

import threading
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from vambrace.assets.seal import merkle
from vambrace.assets.seal import statement as statements
from vambrace.assets.seal.chunks import FRAME_BYTES, OVERHEAD, ChunkCipher, check_threads, spread
from vambrace.assets.seal.header import HEADER_BYTES
from vambrace.assets.seal.incoming import read_trailer
from vambrace.assets.seal.opening import open_header, read_sidecar
from vambrace.assets.seal.origin import accepted_keys
from vambrace.assets.seal.padding import is_zero
from vambrace.assets.seal.recipients import identities_of
from vambrace.assets.seal.refusals import added, contradictory, cut_short
from vambrace.assets.seal.room import filled
from vambrace.assets.seal.sink import put
from vambrace.assets.seal.source import FileSource
from vambrace.assets.seal.trailer import FOOT_BYTES, Foot, Leaves, TrailerMac
from vambrace.core.options import require
from vambrace.errors import ArtifactRefused

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Iterable, Sequence

    from cryptography.utils import Buffer

    from vambrace.assets.seal.opening import Opened
    from vambrace.assets.seal.origin import Signer
    from vambrace.assets.seal.recipients import Identity
    from vambrace.assets.seal.sink import Sink
    from vambrace.assets.seal.statement import Statement

__all__ = ["Sealed"]

MOST_CHANGES: Final = 8  # of the header while it is opened: each may cost the hashing of a passphrase


class Sealed:
    """A sealed file on disk, of which any part can be read without the rest. Several threads may use one.

    The header, the sizes and the trailer are verified when it is opened, and every chunk whenever it is touched: its
    tag and, with `signers`, its leaf in the tree that was signed. Reading all of the content, and `verify`, touch every
    chunk, also those of padding only. Of the chunk that was last read in part, the plain bytes stay in memory.

    Args:
        source: the file; belongs to this object from now on.
        opened: its header.
        signers: Ed25519 public keys, 32 bytes each, one of which must have signed; empty: nobody has to.
        threads: how many decrypt, where a call does not say.

    Attributes:
        header: what the file says to everybody.
        description: what it says about its content.
        size: bytes of the content.
        signed: whether the file has a signature.

    Raises:
        ConfigError: E712, for less than one thread or more than 256, here and wherever `threads` is given.
        ArtifactRefused: E706 cut short, E707 bytes after the end, E708 a damaged trailer, E711 sizes that contradict
            each other, E740 to E743 a signature that is not what it has to be.
        ResourceError: E604, when the file cannot be read.
    """

    def __init__(
        self, source: FileSource, opened: Opened, *, signers: Collection[bytes] = (), threads: int = 1
    ) -> None:
        self.header = opened.header
        self.description = opened.description
        self._source = source
        self._opened = opened
        self._threads = check_threads(threads)
        self._cipher = ChunkCipher(opened.keys, opened.header.fixed)
        self._chunk_size = opened.header.fixed.chunk_size
        self._foot, self._leaves, self._said = self._trailer()
        self._layout = self._foot.layout(self._chunk_size)
        size, stream = opened.description.size, self._foot.stream
        if size is not None and size > stream:
            raise contradictory(f"{stream} bytes in the chunks", f"the {size} that the description names")
        self.size = stream if size is None else size
        self.signed = bool(self._foot.leaves)
        self._as_signed = False
        largest = min(self._chunk_size, stream)
        self._records = _Buffers(largest + OVERHEAD)
        self._plains = _Buffers(largest)
        self._recent = (-1, self._plains.take())
        self._lock = threading.Lock()
        if signers:
            statements.demand(self.statement, signers)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        identities: Sequence[object] | object,
        *,
        signers: Signer | Iterable[Signer] | None = None,
        threads: int = 1,
        ignore_expiry: bool = False,
    ) -> Self:
        """Open the file at `path`, also where a change of its header was interrupted; arguments as of `seal.load`.

        Raises:
            NotThere: E776, a FileNotFoundError: there is none.
            ArtifactRefused: as `open_header` and as this class.
            ResourceError: E604, when it cannot be read or is no regular file.
        """
        place, by, accepted = Path(path), identities_of(identities), accepted_keys(signers)
        source = FileSource.open(place)
        try:
            # A change of the header puts its sidecar beside the file, not beside links to it.
            opened = _settled(place.resolve(), source, by, ignore_expiry)
            return cls(source, opened, signers=accepted, threads=threads)
        except BaseException:
            source.close()
            raise

    @cached_property
    def statement(self) -> Statement | None:
        """Who signed, verified against the leaves; None for a file that is not signed.

        A recipient can put chunks of his own before leaves that somebody else signed. So from this on, every chunk that
        is read has to be the one that was signed: what is said here holds for what is read afterwards.

        Raises:
            ArtifactRefused: E740 or E741, when the signature is not what it has to be.
        """
        if not self.signed:
            return None
        foot = self._foot
        said = statements.check(self._said, self.header.fixed, foot.chunks, foot.stream, self._leaves.root())
        with self._lock:
            self._as_signed, self._recent = True, (-1, self._recent[1])
        return said

    def read(self, begin: int, end: int) -> bytes:
        """The bytes of the content from `begin` to `end`. Raises as `read_into`."""
        self._check_range(begin, end)
        return filled(end - begin, lambda out: self.read_into(begin, out))

    def read_into(self, begin: int, buffer: Buffer, *, threads: int | None = None) -> None:
        """Fill `buffer`, contiguous and writable, with the content from `begin` on; only the touched chunks are read.

        Raises:
            ConfigError: E716, for bytes that the content does not have.
            ArtifactRefused: E705 a damaged chunk, E706 a file that has become shorter, E711 padding that is not zero.
                What was verified before stands in the buffer then.
            ResourceError: E604, when the file cannot be read.
        """
        out = memoryview(buffer)
        self._check_range(begin, begin + out.nbytes)
        if out.nbytes == self.size:
            self._check_from(self.size, 1)
        if out.nbytes:
            self._fill(begin, out.cast("B"), self._threads if threads is None else check_threads(threads))

    def copy_to(
        self, sink: Sink, *, threads: int | None = None, progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Write the content to `sink`, with `threads` chunks in memory. Raises as `read_into`.

        Args:
            sink: takes the bytes.
            threads: how many decrypt.
            progress: called with the bytes that were written, and those there are.
        """
        threads = self._threads if threads is None else check_threads(threads)
        self._check_from(self.size, 1)
        block = memoryview(bytearray(min(self.size, threads * self._chunk_size)))
        for begin in range(0, self.size, len(block) or 1):
            part = block[: self.size - begin]
            self._fill(begin, part, threads)
            end = begin + len(part)
            while part:
                part = put(sink, part)
            if progress:
                progress(end, self.size)

    def verify(
        self, *, begin: int = 0, threads: int | None = None, progress: Callable[[int, int], None] | None = None
    ) -> Statement | None:
        """Verify every chunk, the padding and, in a signed file, signature and leaves; who signed it, if anybody.

        Args:
            begin: pass over the chunks that hold a byte of the content before this one: for who reads those anyway.
            threads: how many decrypt.
            progress: called with the bytes that were verified, padding included, and those there are.

        Raises:
            ArtifactRefused: as `read_into` and `statement`.
            ResourceError: E604, when the file cannot be read.
        """
        said = self.statement
        self._check_from(begin, self._threads if threads is None else check_threads(threads), progress)
        return said

    def close(self) -> None:
        """Release the file and forget what was read; twice is fine."""
        self._source.close()
        self._records.clear()
        self._plains.clear()
        self._recent = (-1, memoryview(b""))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_range(self, begin: int, end: int) -> None:
        require(
            0 <= begin <= end <= self.size,
            code="E716",
            seen=f"the bytes {begin} to {end}",
            expected=f"a range within 0 to {self.size}",
            fix="ask for bytes that the content has",
        )

    def _fill(self, begin: int, out: memoryview, threads: int) -> None:
        whole, end = self._chunk_size, begin + len(out)
        last = (end - 1) // whole

        def work(index: int) -> None:
            at, plain = index * whole, self._layout.plain(index)
            low, high = max(begin, at), min(end, at + plain)
            target = out[low - begin : high - begin]
            if len(target) == plain:
                self._decrypt(index, target)
            else:
                self._copy_part(index, low - at, target, keep=index == last)

        spread(work, range(begin // whole, last + 1), threads)

    def _copy_part(self, index: int, low: int, target: memoryview, *, keep: bool) -> None:
        """Fill `target` from a chunk that is wanted in part; kept, it serves who wants its next bytes."""
        high = low + len(target)
        with self._lock:
            known, kept = self._recent
            if known == index:
                target[:] = kept[low:high]
                return
        plain, as_signed = self._plains.take(), self._as_signed
        self._whole(index, plain)
        target[:] = plain[low:high]
        if keep:
            with self._lock:
                # Who asked for the signer meanwhile gets no chunk that was not held against the signature.
                if as_signed == self._as_signed:
                    plain, self._recent = self._recent[1], (index, plain)
        self._plains.give(plain)

    def _check_from(self, begin: int, threads: int, progress: Callable[[int, int], None] | None = None) -> None:
        """Verify the chunks that hold no byte of the content before `begin`."""
        first, done, lock = -(-begin // self._chunk_size), 0, threading.Lock()
        total = max(0, self._foot.stream - first * self._chunk_size)

        def work(index: int) -> None:
            nonlocal done
            plain = self._plains.take()
            self._whole(index, plain)
            self._plains.give(plain)
            if progress:
                with lock:
                    done += self._layout.plain(index)
                    progress(done, total)

        spread(work, range(first, self._layout.count), threads)

    def _whole(self, index: int, out: memoryview) -> None:
        plain = out[: self._layout.plain(index)]
        self._decrypt(index, plain)
        if not is_zero(plain[max(0, self.size - index * self._chunk_size) :]):
            raise contradictory("padding that is not zero", "zeros behind the content")

    def _decrypt(self, index: int, out: memoryview) -> None:
        buffer = self._records.take()
        record = buffer[: len(out) + OVERHEAD]
        self._source.read_into(self._layout.offset(index), record)
        if self._as_signed:
            self._leaves.check(index, record)
        self._cipher.open(index, index + 1 == self._layout.count, record, out)
        self._records.give(buffer)

    def _trailer(self) -> tuple[Foot, Leaves, bytes]:
        source, keys, fixed = self._source, self._opened.keys, self._opened.header.fixed
        at = source.size - FOOT_BYTES
        foot = Foot.parse(source.read(at, FOOT_BYTES)) if at >= HEADER_BYTES else None
        if foot is None or foot.fault(self._chunk_size) or foot.trailer > source.size - HEADER_BYTES:
            raise self._misplaced()
        end = source.size - foot.trailer
        mac = TrailerMac(keys, fixed.binding)
        leaves = Leaves(foot.leaves // merkle.SIZE, lambda low, high: source.read(end + low, high - low))
        leaves.scan(mac)
        said = source.read(at - foot.statement, foot.statement)
        if not mac.verified(foot, said):
            raise self._misplaced()
        whole = foot.layout(self._chunk_size).end
        if end != whole:
            seen = f"{source.size} bytes where the foot tells of {whole + foot.trailer}"
            raise cut_short(seen) if end < whole else added(seen)
        return foot, leaves, said

    def _misplaced(self) -> ArtifactRefused:
        """Why the file does not end with its foot: frames, which nobody has verified, lead to where it should be."""
        source, at, index, last = self._source, HEADER_BYTES, 0, False
        try:
            while not last:
                if at + OVERHEAD > source.size:
                    return cut_short(f"the end of the file in chunk {index}")
                size, last = self._cipher.frame(index, source.read(at, FRAME_BYTES))
                if (at := at + size + OVERHEAD) > source.size:
                    return cut_short(f"the end of the file in chunk {index}")
                index += 1
            total = at - HEADER_BYTES - index * OVERHEAD
            read_trailer(source.stream(at), self._opened, index, total)
        except ArtifactRefused as error:
            return error
        return contradictory("a foot whose numbers do not fit each other", "the numbers of these chunks")


class _Buffers:
    """Buffers of one size, used again by whichever thread needs one: new memory costs more than decrypting into it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free: list[memoryview] = []

    def take(self) -> memoryview:
        try:
            return self._free.pop()
        except IndexError:
            return memoryview(bytearray(self._size))

    def give(self, buffer: memoryview) -> None:
        self._free.append(buffer)

    def clear(self) -> None:
        self._free.clear()


def _settled(place: Path, source: FileSource, identities: Sequence[Identity], ignore_expiry: bool) -> Opened:
    """The header, read once more while somebody is changing it: half of it may be new, and the sidecar gone."""
    region = source.read(0, min(source.size, HEADER_BYTES))
    for _ in range(MOST_CHANGES):
        try:
            sidecar = read_sidecar(place, region)
            return open_header(region, identities, sidecar=sidecar, ignore_expiry=ignore_expiry)
        except ArtifactRefused:
            before, region = region, source.read(0, len(region))
            if region == before:
                raise
    return open_header(region, identities, ignore_expiry=ignore_expiry)

"""What the tests of sealed files share: every way of reading, and a record of each byte that came out."""

from __future__ import annotations

import errno
import io
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from vambrace.assets.seal import merkle, statement
from vambrace.assets.seal.header import Fixed
from vambrace.assets.seal.reader import Reader, Sealed
from vambrace.assets.seal.recipients import Identity, as_identity
from vambrace.errors import VambraceError

KEY = bytes(range(32))
CHUNK = 65_536
SIGNER = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
PUBLIC = SIGNER.public_key().public_bytes_raw()
OTHER = Ed25519PrivateKey.from_private_bytes(b"\x08" * 32)


def content(size: int) -> bytes:
    """Bytes that differ from chunk to chunk."""
    return b"".join(at.to_bytes(8, "little") for at in range(-(-size // 8)))[:size]


@dataclass
class Outcome:
    """What one way of reading came to: the error's code ("" for none) and message, and all bytes that it let out."""

    way: str
    code: str
    message: str
    out: bytes


class Recorder:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes | memoryview) -> int:
        self.data += data
        return len(data)


class Dribble(io.RawIOBase):
    """A stream that gives at most `most` bytes at a time and cannot seek."""

    def __init__(self, data: bytes, most: int = 10_000) -> None:
        super().__init__()
        self._stream = io.BytesIO(data)
        self._most = most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        return self._stream.readinto(memoryview(buffer)[: self._most])


def identities(key: object = KEY) -> list[Identity]:
    return [as_identity(key)]


def sign(fixed: Fixed, count: int, stream: int, root: bytes) -> bytes:
    """A statement by `SIGNER`."""
    return statement.make(SIGNER, fixed, count, stream, root, "A. Smith", "release", "2026-01-01T00:00:00Z")


def root_of(leaves: bytes) -> bytes:
    """The root over leaves of 32 bytes each."""
    tree = merkle.Tree()
    for begin in range(0, len(leaves), 32):
        tree.add(leaves[begin : begin + 32])
    return tree.root()


def streamed(data: bytes, way: str = "stream", *, opener: list[Identity] | None = None, **options: object) -> Outcome:
    sink = Recorder()
    try:
        with Reader(io.BytesIO(data), opener or identities(), **options) as reader:
            reader.copy_to(sink)
    except VambraceError as error:
        return Outcome(way, error.code, str(error), bytes(sink.data))
    return Outcome(way, "", "", bytes(sink.data))


def random_access(
    path: Path, way: str = "sealed", *, opener: list[Identity] | None = None, threads: int = 1, **options: object
) -> Outcome:
    """All of the content through `read_into`; what was not filled in stays 0xEE, and is not part of what came out."""
    out = bytearray()
    try:
        with Sealed.open(path, opener or identities(), **options) as sealed:
            out = bytearray(b"\xee" * sealed.size)
            sealed.read_into(0, out, threads=threads)
    except VambraceError as error:
        return Outcome(way, error.code, str(error), bytes(out))
    return Outcome(way, "", "", bytes(out))


def every_way(data: bytes, path: Path, *, signers: tuple[bytes, ...] = (), threads: int = 2) -> list[Outcome]:
    """Read `data` in every way there is."""
    path.write_bytes(data)
    found = [streamed(data), random_access(path), random_access(path, "threads", threads=threads)]
    if signers:
        found += [
            streamed(data, "spooled", signers=signers),
            streamed(data, "unverified", signers=signers, stream_unverified=True),
            random_access(path, "signed", signers=signers),
        ]
    return found


def nothing_false(outcome: Outcome, true: bytes, *, chunk: int = CHUNK) -> None:
    """Assert that only bytes of `true` came out, each in its place."""
    if outcome.way in {"stream", "spooled", "unverified"}:
        assert true.startswith(outcome.out), outcome.way
        return
    for at in range(0, len(outcome.out), chunk):
        there = outcome.out[at : at + chunk]
        # Either what was sealed, or nothing, or what was overwritten again.
        assert there == true[at : at + chunk] or set(there) in ({0xEE}, {0}), (outcome.way, at)


class Full(io.RawIOBase):
    """A file on a disk without room."""

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return offset

    def tell(self) -> int:
        return 0

    def write(self, data: object, /) -> int:
        raise OSError(errno.ENOSPC, "full")

"""A program for tests of memory, from standard input to output.

    python streaming.py write|spool|read SIZE CHUNK THREADS

Writes on standard error, as JSON, by how many KiB its memory grew at most after everything was imported, and a digest.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from vambrace.assets.seal import statement
from vambrace.assets.seal.reader import Reader
from vambrace.assets.seal.recipients import as_identity, as_recipient
from vambrace.assets.seal.writer import Writer

KEY = bytes(range(32))
SIGNER = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
BLOCK = bytearray(hashlib.shake_256(b"block").digest(2**16))


class Pattern(io.RawIOBase):
    """So many bytes, in blocks of 64 KiB that begin with their number."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.at = 0
        self.digest = hashlib.blake2b()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        number, start = divmod(self.at, len(BLOCK))
        BLOCK[:8] = number.to_bytes(8, "little")
        size = min(len(buffer), len(BLOCK) - start, self.size - self.at)
        buffer[:size] = BLOCK[start : start + size]
        self.digest.update(buffer[:size])
        self.at += size
        return size


class Digest:
    """A sink that keeps nothing."""

    def __init__(self) -> None:
        self.digest = hashlib.blake2b()

    def write(self, data: memoryview) -> int:
        self.digest.update(data)
        return len(data)


def peak() -> int:
    """KiB; of this program alone, which `getrusage` does not say after a fork."""
    found = re.search(r"VmHWM:\s+([0-9]+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found
    return int(found[1])


def sign(*about: object) -> bytes:
    return statement.make(SIGNER, *about, "", "", "2026-01-01T00:00:00Z")  # type: ignore[arg-type]


def main(role: str, size: int, chunk: int, threads: int) -> None:
    before = peak()
    if role == "write":
        pattern = Pattern(size)
        with Writer(
            sys.stdout.buffer, [as_recipient(KEY)], size=size, pad=True, chunk_size=chunk, threads=threads, sign=sign
        ) as writer:
            writer.copy_from(pattern)
        digest = pattern.digest
    else:
        sink = Digest()
        signers = [SIGNER.public_key().public_bytes_raw()] if role == "spool" else None
        Reader(sys.stdin.buffer, [as_identity(KEY)], signers=signers).copy_to(sink)
        digest = sink.digest
    print(json.dumps({"grew": peak() - before, "digest": digest.hexdigest()}), file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))

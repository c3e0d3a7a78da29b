"""Fuzzes the readers of sealed files: `python tests/assets/seal/fuzz_sealed.py -max_total_time=600`.

The first byte of an input chooses what the rest is put in for, from whole files to the parts that only a holder of the
key can write, with every check value around them made right, so that no HMAC keeps the fuzzer out. Whatever comes, a
reader lets out what was sealed, or refuses with our own error: anything else is a crash, as is much memory or time.
"""

from __future__ import annotations

import dataclasses
import io
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

with atheris.instrument_imports(include=["vambrace.assets.seal", "vambrace.core.canonical"]):
    from vambrace.assets.seal import description, header, incoming, listing, statement, subject, trailer  # noqa: F401
    from vambrace.assets.seal import signature as signatures
    from vambrace.assets.seal.folders import read_manifest
    from vambrace.assets.seal.opening import Opened, open_header
    from vambrace.assets.seal.reader import Reader, Sealed

from assets.seal.harness import SIGNER, Recorder, identities
from assets.seal.naive_sealed import HEADER, Naive
from vambrace.assets.seal.source import FileSource
from vambrace.errors import ArtifactRefused

CONTENT = bytes(range(256)) * 257  # two chunks
FILE = Naive(CONTENT, signer=SIGNER, public={"licence": "MIT"}, metadata={"expires": "2999-01-01T00:00:00Z"})
SMALL = Naive(CONTENT[:300], signer=SIGNER)
REGION, RECORDS, TRAILER = FILE.parts()
OPENER = identities()
OPENED: Opened = open_header(REGION, OPENER)
DISK = os.memfd_create("fuzzed")


def read(data: bytes, true: bytes) -> None:
    """Both readers, on `data`: what comes out is the start of `true`."""
    sink = Recorder()
    try:
        Reader(io.BytesIO(data), OPENER, check_signature=True, ignore_expiry=True).copy_to(sink)
    except ArtifactRefused:
        assert len(sink.data) < len(true) or not true
    assert true.startswith(sink.data)
    os.ftruncate(DISK, 0)
    os.pwrite(DISK, data, 0)
    source = FileSource(os.dup(DISK), "fuzzed")
    try:
        opened = open_header(data[:HEADER], OPENER, ignore_expiry=True)
        sealed = Sealed(source, opened)
        assert sealed.read(0, sealed.size) == true
        sealed.verify()
    except ArtifactRefused:
        pass
    finally:
        source.close()


def head(data: bytes) -> None:
    """The start of a header, behind it zeros and the right HMAC."""
    start = data[: HEADER - 32].ljust(HEADER - 32, b"\0")
    region = start + header.hmac.digest(OPENED.keys.header, start, "sha256")
    read(region + b"".join(RECORDS) + TRAILER, CONTENT)


def text(data: bytes) -> None:
    """The header's text."""
    if len(data) < 65_000:
        try:
            open_header(dataclasses.replace(FILE, text=data).region(), OPENER, ignore_expiry=True)
        except ArtifactRefused:
            return


def private(data: bytes) -> None:
    """The private description, encrypted as it has to be."""
    if len(data) < 40_000:
        file = dataclasses.replace(FILE, description=data, signer=None)
        region = file.region()
        try:
            size = open_header(region, OPENER, ignore_expiry=True).description.size
        except ArtifactRefused:
            return
        size = len(CONTENT) if size is None else size
        read(region + b"".join(file.records()) + file.trailer(file.records()), CONTENT[:size])


def rest(data: bytes) -> None:
    """What follows the header."""
    read(SMALL.region() + data, SMALL.content)


def end(data: bytes) -> None:
    """What follows the chunks."""
    read(REGION + b"".join(RECORDS) + data, CONTENT)


def said(data: bytes) -> None:
    """The signer's statement, with the right HMAC around it."""
    read(REGION + b"".join(RECORDS) + dataclasses.replace(FILE, statement=data[:20_000]).trailer(RECORDS), CONTENT)


def numbers(data: bytes) -> None:
    """The foot's numbers, with the right HMAC around them."""
    widths = {"chunks": 8, "stream": 8, "leaves": 8, "statement": 4, "zero": 4}
    foot, at = {}, 0
    for name, width in widths.items():
        if at < len(data) and data[at] & 1:
            foot[name] = int.from_bytes(data[at + 1 : at + 1 + width], "little")
        at += width + 1
    read(REGION + b"".join(RECORDS) + dataclasses.replace(FILE, foot=foot).trailer(RECORDS), CONTENT)


def manifest(data: bytes) -> None:
    """A folder's list of files, and what follows it."""
    listed, _, files = data.partition(b"\0")
    file = dataclasses.replace(
        FILE, kind="folder", content=len(listed).to_bytes(8, "little") + listed + files, signer=None
    )
    os.ftruncate(DISK, 0)
    os.pwrite(DISK, whole := file.data(), 0)
    with Sealed(FileSource(os.dup(DISK), "fuzzed"), open_header(whole[:HEADER], OPENER, ignore_expiry=True)) as sealed:
        try:
            members = read_manifest(sealed)
        except ArtifactRefused:
            return
    for path, member in members.items():
        assert 0 <= member.begin <= member.begin + member.size <= len(file.content)
        assert Path("/a", path).resolve() == Path("/a", path)


def beside(data: bytes) -> None:
    """A file of signatures, of which none holds but the one that was made."""
    try:
        found = signatures.parse(data)
    except ArtifactRefused:
        return
    assert data.startswith(SIGNATURE[: SIGNATURE.index(b"\n", 30)])
    assert found.entries


LISTED = b'{"files":[{"path":"a/b","size":9},{"path":"c","size":0}]}'
FOLDER = subject.Subject("folder", (subject.Entry("a/b", "0" * 64, 3), subject.Entry("c", "1" * 64, 2**53)))
SIGNATURE = signatures.added(signatures.begun(FOLDER), SIGNER, name="A", role="B", date="2026-01-01T00:00:00Z")
PLACES: list[Callable[[bytes], None]] = [head, text, private, rest, end, said, numbers, manifest, beside]
SEEDS = [
    REGION.rstrip(b"\0")[: 116 + len(FILE.header_text())],
    FILE.header_text(),
    b'{"content":"bytes","metadata":{"expires":"2999-01-01T00:00:00Z"},"size":65792}',
    SMALL.data()[HEADER:],
    TRAILER,
    TRAILER[32 * len(RECORDS) : -72],
    b"\1\2\0\0\0\0\0\0\0\1\0\1\1\0\0\0\0\0",
    LISTED + bytes(1 + 192 - 8 - len(LISTED)),  # the second file begins, and ends, at byte 192
    SIGNATURE,
]


def one(data: bytes) -> None:
    """One input of the fuzzer."""
    if data:
        PLACES[data[0] % len(PLACES)](data[1:])


def main() -> None:
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(SEEDS):
            Path(corpus, str(number)).write_bytes(bytes([number]) + seed)
        atheris.Setup([*sys.argv, "-timeout=10", "-rss_limit_mb=1024", "-max_len=70000", corpus], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()

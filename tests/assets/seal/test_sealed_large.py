"""Large files: little memory in pipes, whatever passes through, and four GiB there and back."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from assets.seal.harness import identities
from assets.seal.naive_sealed import padme
from assets.seal.streaming import KEY, SIGNER, Pattern, sign
from vambrace.assets.seal.reader import Sealed
from vambrace.assets.seal.recipients import as_recipient
from vambrace.assets.seal.writer import Writer

MIB = 2**20
PROGRAM = Path(__file__).with_name("streaming.py")
ALLOWED = 64 * MIB


def piped(role: str, size: int, chunk: int, threads: int) -> list[dict[str, Any]]:
    """One process writes into a pipe, another reads from it; what each has said of itself."""
    arguments = [str(size), str(chunk), str(threads)]
    out, into = os.pipe()
    writer = subprocess.Popen([sys.executable, PROGRAM, "write", *arguments], stdout=into, stderr=subprocess.PIPE)
    os.close(into)
    reader = subprocess.Popen([sys.executable, PROGRAM, role, *arguments], stdin=out, stderr=subprocess.PIPE)
    os.close(out)
    said = [process.communicate(timeout=600)[1].decode() for process in (writer, reader)]
    assert [writer.returncode, reader.returncode] == [0, 0], said
    return [json.loads(text) for text in said]


def stays_small(role: str, size: int, chunk: int, threads: int) -> None:
    written, read = piped(role, size, chunk, threads)
    assert written["digest"] == read["digest"]
    # The writer fills plain chunks and seals them into records; the reader holds three.
    slots = threads + 2 if threads > 1 else 1
    assert written["grew"] * 1024 <= 2 * slots * chunk + ALLOWED
    assert read["grew"] * 1024 <= 3 * chunk + ALLOWED


def test_memory_in_a_pipe() -> None:
    stays_small("read", 150 * MIB, MIB, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("role", "size", "chunk", "threads"),
    [
        ("read", 4096 * MIB, MIB, 1),
        ("read", 1024 * MIB, 16 * MIB, 3),
        ("read", 1024 * MIB, 2**16, 2),
        ("spool", 1024 * MIB, MIB, 2),
    ],
)
def test_memory_in_a_pipe_of_gigabytes(role: str, size: int, chunk: int, threads: int) -> None:
    stays_small(role, size, chunk, threads)


@pytest.mark.slow
@pytest.mark.parametrize("pad", [False, True])
def test_four_gib(pad: bool, tmp_path: Path) -> None:
    size, path = 4096 * MIB + 13, tmp_path / "a.sealed"
    with Writer(path, [as_recipient(KEY)], size=size, pad=pad, sign=sign, threads=2) as writer:
        writer.copy_from(Pattern(size))
    assert path.stat().st_size > (padme(size) if pad else size)
    rng = random.Random(1)
    with Sealed.open(path, identities(), signers=[SIGNER.public_key().public_bytes_raw()], threads=2) as sealed:
        assert sealed.size == size
        for begin in [0, size - 100, *(rng.randrange(size - MIB) for _ in range(50))]:
            end = min(size, begin + rng.randrange(1, MIB))
            assert sealed.read(begin, end) == expected(begin, end)
        assert sealed.verify() is not None
        part = bytearray(64 * MIB)
        for begin in range(0, 4096 * MIB, 512 * MIB):
            sealed.read_into(begin, part)
            assert part == expected(begin, begin + len(part))
    path.unlink()  # pytest keeps the folders of its last runs


def expected(begin: int, end: int) -> bytes:
    """Those bytes of the pattern."""
    pattern = Pattern(end)
    pattern.at = begin
    return io.BufferedReader(pattern).read()

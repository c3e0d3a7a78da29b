"""The foot's numbers, its HMAC, and leaves that do not fill the memory."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from assets.seal.harness import CHUNK, SIGNER, content
from assets.seal.naive_sealed import Naive, merkle
from vambrace.assets.seal.schedule import FileKeys
from vambrace.assets.seal.suites import Suite
from vambrace.assets.seal.trailer import Foot, Leaves, TrailerMac
from vambrace.errors import ArtifactRefused

FILE = Naive(content(2 * CHUNK + 5), signer=SIGNER)
REGION, RECORDS, TRAILER = FILE.parts()
KEYS = FileKeys(FILE.file_key, FILE.salt, Suite.AES_256_GCM)


def test_a_foot_is_that_of_the_page() -> None:
    foot = Foot.parse(TRAILER[-72:])
    assert foot is not None
    statement = TRAILER[96:-72]
    assert (foot.chunks, foot.stream, foot.leaves, foot.statement) == (3, 2 * CHUNK + 5, 96, len(statement))
    assert foot.pack() == TRAILER[-72:]
    assert foot.trailer == len(TRAILER)
    mac = TrailerMac(KEYS, FILE.binding())
    mac.update(TRAILER[:96])
    assert mac.verified(foot, statement)
    assert not mac.verified(foot)
    assert mac.finish(foot, statement) == foot.mac
    mac.update(statement)
    assert mac.verified(foot)


@pytest.mark.parametrize("at", [*range(8), 36, 37, 38, 39])
def test_what_is_no_foot(at: int) -> None:
    data = bytearray(TRAILER[-72:])
    data[at] ^= 4
    assert Foot.parse(bytes(data)) is None


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, ""),
        ({"chunks": 1, "stream": 0, "leaves": 32}, ""),
        ({"leaves": 0, "statement": 0}, ""),
        ({"statement": 16_384}, ""),
        ({"chunks": 2**32, "stream": 2**32 * CHUNK, "leaves": 2**37}, ""),
        ({"chunks": 0, "stream": 0}, "0 chunks"),
        ({"chunks": 2, "leaves": 64}, "2 chunks"),
        ({"chunks": 4, "leaves": 128}, "4 chunks"),
        ({"chunks": 2**32 + 1, "stream": 2**32 * CHUNK + 1, "leaves": 2**37 + 32}, "chunks for"),
        ({"stream": 2**64 - 1}, "3 chunks for"),
        ({"leaves": 95}, "leaves of 95"),
        ({"leaves": 2**63}, "leaves of"),
        ({"leaves": 0}, "a statement of 1"),
        ({"statement": 0}, "a statement of 0"),
        ({"statement": 16_385}, "a statement of 16385"),
        ({"statement": 2**32 - 1}, "a statement of"),
    ],
)
def test_numbers_that_cannot_be(change: dict[str, Any], fault: str) -> None:
    foot = Foot(**{"chunks": 3, "stream": 2 * CHUNK + 5, "leaves": 96, "statement": 1} | change)
    assert (fault in foot.fault(CHUNK)) if fault else foot.fault(CHUNK) == ""


class Store:
    """Leaves of so many chunks, and how often they were read."""

    def __init__(self, count: int) -> None:
        self.leaves = [hashlib.sha256(b"\0" + i.to_bytes(4, "big")).digest() for i in range(count)]
        self.data = bytearray(b"".join(self.leaves))
        self.reads: list[int] = []

    def read(self, begin: int, end: int) -> bytes:
        self.reads.append(end - begin)
        return bytes(self.data[begin:end])


@pytest.mark.parametrize("count", [1, 4095, 4096, 4097, 20_000])
def test_leaves_page_by_page(count: int) -> None:
    store = Store(count)
    leaves, mac = Leaves(count, store.read), TrailerMac(KEYS, b"")
    leaves.scan(mac)
    whole = TrailerMac(KEYS, b"")
    whole.update(store.data)
    foot = Foot(chunks=1, stream=1, leaves=0, statement=0)
    assert mac.finish(foot) == whole.finish(foot)
    assert leaves.root() == merkle(store.leaves)
    assert max(store.reads) <= 4096 * 32
    for index in {0, count // 2, count - 1}:
        leaves.check(index, memoryview(index.to_bytes(4, "big")))
        with pytest.raises(ArtifactRefused, match=f"E705: chunk {index} is not the one that was signed"):
            leaves.check(index, memoryview((index + 1).to_bytes(4, "big")))


def test_a_page_in_use_is_not_read_again() -> None:
    store = Store(5000)
    leaves = Leaves(5000, store.read)
    leaves.scan(TrailerMac(KEYS, b""))
    store.reads.clear()
    for index in range(100, 200):
        leaves.check(index, memoryview(index.to_bytes(4, "big")))
    assert store.reads == [4096 * 32]


def test_pages_do_not_pile_up() -> None:
    store = Store(20 * 4096)
    leaves = Leaves(20 * 4096, store.read)
    leaves.scan(TrailerMac(KEYS, b""))
    for index in range(0, 20 * 4096, 4096):
        leaves.check(index, memoryview(index.to_bytes(4, "big")))
    assert len(leaves._pages) <= 16


def test_leaves_that_change_after_the_signature_was_verified() -> None:
    store = Store(5000)
    leaves = Leaves(5000, store.read)
    leaves.scan(TrailerMac(KEYS, b""))
    leaves.root()
    leaves._pages.clear()
    store.data[4096 * 32 : 4096 * 32 + 32] = hashlib.sha256(b"\0forged").digest()
    leaves.check(0, memoryview(bytes(4)))
    with pytest.raises(ArtifactRefused, match="E708: leaves that have changed"):
        leaves.check(4096, memoryview(b"forged"))

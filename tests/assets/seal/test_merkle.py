"""The tree of RFC 6962: its published roots, the recursion as the RFC writes it, and what must not collide."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vambrace.assets.seal import merkle

# The reference inputs and roots of the Certificate Transparency implementations (merkletree reference test data).
INPUTS = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def naive(records: list[bytes]) -> bytes:
    """MTH as section 2.1 writes it: split at the largest power of two below n."""
    if not records:
        return hashlib.sha256().digest()
    if len(records) == 1:
        return hashlib.sha256(b"\x00" + records[0]).digest()
    split = 1
    while split * 2 < len(records):
        split *= 2
    return hashlib.sha256(b"\x01" + naive(records[:split]) + naive(records[split:])).digest()


def root(*leaves: bytes) -> bytes:
    tree = merkle.Tree()
    for leaf in leaves:
        tree.add(leaf)
    return tree.root()


@pytest.mark.parametrize("count", range(9))
def test_published_roots(count: int) -> None:
    assert root(*map(merkle.leaf, INPUTS[:count])).hex() == ROOTS[count] == naive(INPUTS[:count]).hex()


@pytest.mark.parametrize("count", [*range(70), 127, 128, 129, 1000])
def test_against_the_recursion(count: int) -> None:
    records = [str(number).encode() for number in range(count)]
    assert root(*map(merkle.leaf, records)) == naive(records)


@given(st.lists(st.binary(max_size=8), max_size=40))
def test_at_every_length_on_the_way(records: list[bytes]) -> None:
    tree = merkle.Tree()
    for count, record in enumerate(records):
        assert (tree.count, tree.root()) == (count, naive(records[:count]))
        tree.add(merkle.leaf(record))
    assert tree.root() == naive(records)


def test_memory_is_one_node_for_each_power_of_two() -> None:
    tree = merkle.Tree()
    for _ in range(5000):
        tree.add(bytes(32))
        assert len(tree._complete) <= tree.count.bit_length()


def test_a_chunk_in_parts_is_the_chunk() -> None:
    whole = bytes(range(100))
    assert merkle.leaf(whole[:4], memoryview(whole)[4:90], bytearray(whole[90:])) == merkle.leaf(whole)


def test_a_node_is_no_chunk() -> None:
    """Without the first bytes, one chunk that spells two leaves would have the root of the two."""
    two = merkle.leaf(b"a"), merkle.leaf(b"b")
    both = b"".join(two)
    assert root(merkle.leaf(both)) != root(*two)
    assert merkle.leaf(both) != merkle.node(*two)
    assert merkle.leaf(b"") != hashlib.sha256().digest()

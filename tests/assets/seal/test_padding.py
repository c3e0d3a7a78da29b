"""Padme, against the paper's own formula, and zeros."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.seal.naive_sealed import padme
from vambrace.assets.seal.padding import is_zero, padded


def from_the_paper(size: int) -> int:
    """Algorithm 1, in floating point, for sizes of which log2 is exact enough."""
    exponent = math.floor(math.log2(size))
    last_bits = exponent - (math.floor(math.log2(exponent)) + 1)
    mask = 2**last_bits - 1
    return (size + mask) & ~mask


def test_it_is_that_of_the_paper() -> None:
    assert [padded(size) for size in (0, 1, 2, 3)] == [0, 1, 2, 3]
    for size in [*range(2, 5000), 2**20 - 1, 2**20, 2**20 + 1, 10**9]:
        assert padded(size) == from_the_paper(size) == padme(size)


@given(st.integers(0, 2**60))
def test_it_costs_little_and_hides_the_rest(size: int) -> None:
    found = padded(size)
    assert size <= found <= size * 1.12
    assert padded(found) == found
    if size > 1:
        exponent = found.bit_length() - 1
        assert found % 2 ** (exponent - exponent.bit_length()) == 0


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 200_000])
def test_zeros(size: int) -> None:
    data = bytearray(size)
    assert is_zero(memoryview(data))
    for at in {0, size // 2, size - 1} & set(range(size)):
        data[at] = 1
        assert not is_zero(memoryview(data))
        data[at] = 0

"""Zeros behind a content, so that the length of a sealed file tells little about it (Padme).

>>> padded(1), padded(9), padded(1_000_001)
(1, 10, 1015808)

Nikitin, Barman, Lueks, Underwood, Hubaux, Ford: Reducing Metadata Leakage from Encrypted Files and Communication with
PURBs, PoPETs 2019(4), algorithm 1: lengths keep as many bits as log2 of their bit length, so of a length of n bits only
O(log log n) bits can be seen, for at most 12 % of zeros.
"""

from __future__ import annotations

from typing import Final

__all__ = ["is_zero", "padded"]

_ZEROS: Final = bytes(2**16)


def padded(size: int) -> int:
    """The length of the stream for a content of `size` bytes."""
    if size < 2:
        return size
    exponent = size.bit_length() - 1
    mask = (1 << (exponent - exponent.bit_length())) - 1
    return (size + mask) & ~mask


def is_zero(data: memoryview) -> bool:
    """Whether all bytes are zero."""
    # Comparing bytes with bytes is a memcmp; a memoryview would be compared item by item.
    return all(
        bytes(data[begin : begin + len(_ZEROS)]) == _ZEROS[: len(data) - begin]
        for begin in range(0, len(data), len(_ZEROS))
    )

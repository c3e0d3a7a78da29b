"""Which samples were right, packed into a finding's series, so that two runs can be compared sample by sample.

`series["outcomes"]` of a finding whose value is a share is text: the number of samples, a colon, and one bit a sample
in hexadecimal, samples in ascending order of their ids, first sample in the highest bit, padded with zeros.

    >>> pack([True, False, True, True, False])
    '5:b0'
    >>> unpack("5:b0")
    (True, False, True, True, False)

In the same form results say which samples of its data a check measured: two findings pair on those that both have
(`vambrace.assess.sampled`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["KEY", "pack", "unpack"]

KEY = "outcomes"
_FORM = re.compile(r"(0|[1-9][0-9]{0,8}):([0-9a-f]*)")


def pack(outcomes: Sequence[bool]) -> str:
    """Outcomes in ascending order of sample ids to text."""
    n = len(outcomes)
    bits = "".join("1" if each else "0" for each in outcomes).ljust(-(-n // 4) * 4, "0")
    return f"{n}:{''.join(f'{int(bits[at : at + 4], 2):x}' for at in range(0, len(bits), 4))}"


def unpack(text: object) -> tuple[bool, ...] | None:
    """The inverse of `pack`; None for anything that `pack` does not write."""
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return None
    n, digits = int(found.group(1)), found.group(2)
    if len(digits) != -(-n // 4):
        return None
    bits = "".join(f"{int(digit, 16):04b}" for digit in digits)
    return tuple(bit == "1" for bit in bits[:n]) if "1" not in bits[n:] else None

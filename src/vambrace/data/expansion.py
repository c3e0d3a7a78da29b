"""How much a packed file may unpack to: the caps that keep a few kilobytes from filling the memory.

The sizes checked here are those that the file declares. Readers then take exactly the declared number of bytes, so
a stream that holds more than it declares is cut off and refused, and never unpacked.

    >>> check_expansion("small.gz", packed=10_000, unpacked=1_000_000)
"""

from __future__ import annotations

from vambrace.errors import DataRefused

__all__ = ["MAX_MEMBER", "MAX_RATIO", "MAX_UNPACKED", "SMALL", "check_expansion", "readable_size"]

MAX_RATIO = 200
"""Largest unpacked / packed size of anything that is not small. Photographs stay below 2, text below 20."""

SMALL = 2**24
"""Bytes below which the ratio says nothing: a million equal labels are honest, harmless and pack 1000:1."""

MAX_UNPACKED = 4 * 2**30
"""Bytes that a packed array may take in memory."""

MAX_MEMBER = 256 * 2**20
"""Bytes of one encoded image, in a folder or in a zip."""


def check_expansion(name: str, *, packed: int, unpacked: int, most: int = MAX_UNPACKED) -> None:
    """Refuse what declares to unpack to too much.

    Args:
        name: what is unpacked, for the message.
        packed: bytes that it takes in the file.
        unpacked: bytes that it declares to become.
        most: largest accepted `unpacked`.

    Raises:
        DataRefused: E312.
    """
    if unpacked > most:
        raise DataRefused(
            "E312",
            seen=f"{name} declares {readable_size(unpacked)} unpacked",
            expected=f"at most {readable_size(most)}",
            fix="store large arrays as plain .npy or idx files, which are read in place, or split the set",
        )
    if unpacked > SMALL and unpacked > MAX_RATIO * max(packed, 1):
        raise DataRefused(
            "E312",
            seen=f"{name} declares {readable_size(unpacked)} from {readable_size(packed)}, "
            f"{unpacked // max(packed, 1)} times its packed size",
            expected=f"at most {MAX_RATIO} times",
            fix="if the data is real, store it unpacked (.npy, idx or a folder)",
        )


def readable_size(size: int) -> str:
    """A number of bytes for people.

    >>> readable_size(999), readable_size(3 * 2**20)
    ('999 bytes', '3.0 MiB')
    """
    amount = float(size)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{size} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"

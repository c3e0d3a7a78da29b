"""Bytes that exist once: made where they stay, not assembled and then copied.

    filled(sealed.size, lambda out: sealed.read_into(0, out))

Large ones are asked for in huge pages, as numpy asks for its own: to get them 4 KiB at a time takes several times as
long as to decrypt into them. Where the system has no such pages, nothing else changes.
"""

from __future__ import annotations

import ctypes
import io
import mmap
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["filled"]

_LARGE: Final = 4 * 2**20


def filled(size: int, fill: Callable[[memoryview], object]) -> bytes:
    """What `fill` puts into `size` zero bytes.

    Raises:
        MemoryError: there are not so many; and what `fill` raises.
    """
    # These bytes belong to the stream alone, so it lends them, and gives them away, without making a copy.
    room = io.BytesIO(bytes(size))
    with room.getbuffer() as view:
        if size >= _LARGE:
            _advise(view)
        fill(view)
    return room.getvalue()


def _advise(view: memoryview) -> None:
    """Ask for huge pages. The system may say no, or know nothing of them: it is a matter of speed only."""
    if sys.platform != "linux":
        return
    try:
        advise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return
    first = ctypes.addressof(ctypes.c_char.from_buffer(view))
    begin = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (first + len(view) - begin) // mmap.PAGESIZE * mmap.PAGESIZE
    advise(ctypes.c_void_p(begin), ctypes.c_size_t(length), mmap.MADV_HUGEPAGE)

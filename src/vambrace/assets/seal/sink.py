"""Where bytes go in order: any object that writes, whatever it takes at once.

>>> class Narrow:
...     def write(self, data, /):
...         return min(2, len(data))
>>> bytes(put(Narrow(), memoryview(b"abc")))
b'c'
"""

from __future__ import annotations

import errno
import io
from typing import Protocol

__all__ = ["Sink", "put"]


class Sink(Protocol):
    """Where the bytes of a stream go, in order. With several threads any of them writes, one at a time."""

    def write(self, data: memoryview, /) -> int | None:
        """Take `data`, or its first bytes, and say how many; None stands for all of them."""
        ...


def put(sink: Sink, data: memoryview) -> memoryview:
    """Let `sink` take `data`, which has bytes, or the first of them; the others.

    Raises:
        BlockingIOError: it takes none: to ask again and again would never end. A raw stream of Python's own that does
            not wait says so by None.
        OSError: it says that it took what cannot be.
    """
    taken = sink.write(data)
    if taken == 0 or (taken is None and isinstance(sink, io.RawIOBase)):
        raise BlockingIOError(errno.EAGAIN, "a stream that takes no more for now")
    if taken is not None and not 0 < taken <= len(data):
        raise OSError(errno.EIO, f"a stream that says it took {taken} of {len(data)} bytes")
    return data[len(data) if taken is None else taken :]

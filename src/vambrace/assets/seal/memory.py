"""A sealed file in memory, to be sent or stored by other means.

    >>> place = Memory()
    >>> place.write(memoryview(b"abc"))
    3
    >>> place.room(2)[:] = b"de"
    >>> bytes(place.data)
    b'abcde'

A stream that copies has to be fed in order; here chunks are sealed where they stay, by several threads at once.
"""

from __future__ import annotations

from typing import Any, Final, cast

import numpy as np

from vambrace.core.options import require

__all__ = ["Memory"]

_BLOCK: Final = 2**24


class Memory:
    """A stream that keeps one sealed file: `seal.save(tensors, place := seal.Memory(), recipients=...)`."""

    def __init__(self) -> None:
        self._blocks: list[memoryview] = []  # full ones
        self._block, self._end = memoryview(b""), 0
        self._owner: object = None

    def claim(self, owner: object) -> None:
        """Let `owner` be who writes.

        Raises:
            ConfigError: E712, where something was written before.
        """
        require(
            not self._blocks and not self._end,
            code="E712",
            seen=f"a Memory that holds {len(self.data)} bytes",
            expected="an empty one",
            fix="make a new Memory for each sealed file",
        )
        self._owner = owner

    def clear(self, owner: object) -> None:
        """Forget what was written, where it was by `owner`."""
        if owner is self._owner:
            self._blocks, self._block, self._end = [], memoryview(b""), 0

    @property
    def data(self) -> memoryview:
        """What was written; without a copy where its size had been known."""
        last = self._block[: self._end]
        return memoryview(b"".join([*self._blocks, last])) if self._blocks else last

    def reserve(self, size: int) -> None:
        """Get room for `size` more bytes at once. What is not used of it takes no memory."""
        if self._end:
            self._blocks.append(self._block[: self._end])
        # numpy asks for huge pages; to get small ones takes longer than to encrypt what goes there.
        self._block, self._end = memoryview(cast("Any", np.empty(size, np.uint8))), 0

    def room(self, size: int) -> memoryview:
        """The next `size` bytes, to be filled by whoever asked."""
        if self._end + size > len(self._block):
            self.reserve(max(size, _BLOCK))
        begin, self._end = self._end, self._end + size
        return self._block[begin : self._end]

    def write(self, data: memoryview) -> int:
        """Put `data` behind what there is; all of it."""
        self.room(len(data))[:] = data
        return len(data)

"""What follows the chunks: leaves of the signed tree, the signer's statement, the foot. See sealed-v1.md, "Trailer".

>>> foot = Foot(chunks=1, stream=5, leaves=0, statement=0)
>>> Foot.parse(foot.pack()).stream
5
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import struct
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from vambrace.assets.seal import merkle
from vambrace.assets.seal.chunks import MOST_CHUNKS, Layout
from vambrace.assets.seal.refusals import damaged_chunk, damaged_trailer
from vambrace.assets.seal.statement import MOST_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from vambrace.assets.seal.schedule import FileKeys

__all__ = ["FOOT_BYTES", "FOOT_MAGIC", "Foot", "Leaves", "TrailerMac"]

FOOT_BYTES: Final = 72
FOOT_MAGIC: Final = b"VBSEALTR"
_MAC_AT: Final = 40
_FOOT: Final = struct.Struct("<8sQQQII")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Foot:
    """The last 72 bytes of a file; `mac` is not authentic before it is compared (`TrailerMac.verify`).

    Attributes:
        chunks: number of chunks.
        stream: plain bytes in all of them, padding included.
        leaves: bytes of the leaves.
        statement: bytes of the statement.
        mac: HMAC-SHA256, 32 bytes; nothing while it is being written.
    """

    chunks: int
    stream: int
    leaves: int
    statement: int
    mac: bytes = b""

    @property
    def trailer(self) -> int:
        """Bytes from the end of the chunks to the end of the file."""
        return self.leaves + self.statement + FOOT_BYTES

    def layout(self, chunk_size: int) -> Layout:
        """Where the chunks stand."""
        return Layout(chunk_size=chunk_size, stream=self.stream)

    def start(self) -> bytes:
        """The 40 bytes that the HMAC covers."""
        return _FOOT.pack(FOOT_MAGIC, self.chunks, self.stream, self.leaves, self.statement, 0)

    def pack(self) -> bytes:
        """The 72 bytes; zeros where there is no HMAC yet."""
        return self.start() + self.mac.ljust(FOOT_BYTES - _MAC_AT, b"\0")

    def fault(self, chunk_size: int) -> str:
        """Which of its numbers cannot be, whatever the file holds; "" when all can."""
        if not 1 <= self.chunks <= MOST_CHUNKS or self.chunks != self.layout(chunk_size).count:
            return f"{self.chunks} chunks for {self.stream} bytes"
        if self.leaves not in {0, merkle.SIZE * self.chunks}:
            return f"leaves of {self.leaves} bytes for {self.chunks} chunks"
        if self.statement > MOST_BYTES or (self.statement == 0) != (self.leaves == 0):
            return f"a statement of {self.statement} bytes beside leaves of {self.leaves}"
        return ""

    @classmethod
    def parse(cls, data: bytes) -> Foot | None:
        """The foot that 72 bytes spell; None when they are none."""
        magic, chunks, stream, leaves, statement, zero = _FOOT.unpack_from(data)
        if magic != FOOT_MAGIC or zero:
            return None
        return cls(chunks=chunks, stream=stream, leaves=leaves, statement=statement, mac=data[_MAC_AT:])


class TrailerMac:
    """The HMAC of a trailer, fed with leaves and statement as they pass.

    Args:
        keys: of the file.
        binding: of the file.
    """

    def __init__(self, keys: FileKeys, binding: bytes) -> None:
        self._mac = hmac.new(keys.trailer, binding, "sha256")

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Feed what comes next."""
        self._mac.update(data)

    def finish(self, foot: Foot, statement: bytes = b"") -> bytes:
        """The HMAC over what was fed, `statement` and the foot's start, 32 bytes; this object stays as it is."""
        mac = self._mac.copy()
        mac.update(statement)
        mac.update(foot.start())
        return mac.digest()

    def verified(self, foot: Foot, statement: bytes = b"") -> bool:
        """Whether the foot's HMAC is that, in constant time."""
        return hmac.compare_digest(self.finish(foot, statement), foot.mac)


class Leaves:
    """The leaves of a seekable file in memory that does not grow with them: pages, remembered by their hashes.

    A page that is read again has to be what it was when the signature was verified.

    Args:
        count: number of leaves.
        read: gives the leaves' bytes from `begin` to `end`, counted from the first leaf.
    """

    _PAGE: Final = 4096  # leaves; 128 KiB
    _KEPT: Final = 16

    def __init__(self, count: int, read: Callable[[int, int], bytes]) -> None:
        self._count = count
        self._read = read
        self._hashes: list[bytes] = []
        self._pages: OrderedDict[int, bytes] = OrderedDict()

    def scan(self, mac: TrailerMac) -> None:
        """Read all leaves once, and feed them to `mac`."""
        self._hashes.clear()
        for number in range(-(-self._count // self._PAGE)):
            page = self._fetch(number)
            mac.update(page)
            self._hashes.append(hashlib.sha256(page).digest())

    def root(self) -> bytes:
        """The root of their tree, 32 bytes; after `scan`. Raises as `check`, E708."""
        tree = merkle.Tree()
        for number in range(len(self._hashes)):
            page = self._page(number)
            for begin in range(0, len(page), merkle.SIZE):
                tree.add(page[begin : begin + merkle.SIZE])
        return tree.root()

    def check(self, index: int, record: memoryview) -> None:
        """Compare the chunk `index`, as it stands in the file, with its leaf; after `scan`.

        Raises:
            ArtifactRefused: E705, when it is not the chunk that was signed; E708, when the leaves have changed.
        """
        number, place = divmod(index, self._PAGE)
        if merkle.leaf(record) != self._page(number)[place * merkle.SIZE : (place + 1) * merkle.SIZE]:
            raise damaged_chunk(index, "is not the one that was signed")

    def _page(self, number: int) -> bytes:
        page = self._pages.get(number)
        if page is None:
            page = self._fetch(number)
            if hashlib.sha256(page).digest() != self._hashes[number]:
                raise damaged_trailer("leaves that have changed since the file was opened")
            self._pages[number] = page
            while len(self._pages) > self._KEPT:
                self._pages.popitem(last=False)
        return page

    def _fetch(self, number: int) -> bytes:
        begin = number * self._PAGE
        return self._read(begin * merkle.SIZE, min(self._count, begin + self._PAGE) * merkle.SIZE)

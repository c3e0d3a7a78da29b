"""How the members of a zip begin, read from its directory entry by entry: a zip of a million members takes no memory.

`zipfile` makes an object of each entry before it shows the first. What it would find is found here, and no more: what
Python cannot open, such as an encrypted member or a damaged directory, nobody's program runs by accident either.
Format: APPNOTE.TXT 6.3.10, sections 4.3 and 4.5.3.
"""

from __future__ import annotations

import bz2
import os
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["has_directory", "is_moved", "members", "unpacked"]

_END: Final = struct.Struct("<4s4H2LH")
_LOCATOR: Final = struct.Struct("<4sLQL")
_WIDE_END: Final = struct.Struct("<4sQ2H2L4Q")
_ENTRY: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_ENTRY_MARK: Final = b"PK\x01\x02"
_END_MARK: Final = b"PK\x05\x06"
_FILLED: Final = 2**32 - 1
_PIECE: Final = 2**16
_FEW: Final = 16
_UNSEEN: Final = frozenset({zipfile.ZIP_LZMA, 93})  # and zstandard, which later versions of Python unpack
_MOST_PACKED: Final = {zipfile.ZIP_DEFLATED: 2**16, zipfile.ZIP_BZIP2: 2**20}  # bzip2 gives nothing before a block


class _Entry(NamedTuple):
    name: bytes
    method: int
    size: int  # packed
    offset: int


def has_directory(fd: int) -> bool:
    """Whether the zip in an open file ends with a directory of entries."""
    begin, end, _ = _directory(fd, os.fstat(fd).st_size)
    return 0 <= begin < end and os.pread(fd, 4, begin) == _ENTRY_MARK


def is_moved(fd: int) -> bool:
    """Whether the directory is not where the zip says: some readers look there, and others at what they find."""
    return _directory(fd, os.fstat(fd).st_size)[2] != 0


def members(fd: int, most: int) -> Iterator[tuple[bytes, bytes | None]]:
    """The members of the zip in an open file.

    Returns:
        Of each its name, and its first bytes, `most` or fewer; None where it is packed so that they are not seen.
    """
    size = os.fstat(fd).st_size
    for entry in _entries(fd, size):
        local = os.pread(fd, _LOCAL.size, entry.offset)
        if len(local) < _LOCAL.size or not local.startswith(b"PK\x03\x04"):
            continue
        names = sum(_LOCAL.unpack(local)[-2:])
        begin = entry.offset + _LOCAL.size + names
        yield entry.name, unpacked(entry.method, _pieces(fd, begin, min(begin + entry.size, size)), most)


def unpacked(method: int, pieces: Iterator[bytes], most: int) -> bytes | None:
    """The first bytes of what is packed by a zip's `method`, `most` or fewer; None where that is not looked into."""
    if method == zipfile.ZIP_STORED:
        return next(pieces, b"")[:most]
    made: dict[int, Any] = {zipfile.ZIP_DEFLATED: lambda: zlib.decompressobj(-zlib.MAX_WBITS)}
    made[zipfile.ZIP_BZIP2] = bz2.BZ2Decompressor
    if method not in made:
        return None if method in _UNSEEN else b""
    packer, found, taken = made[method](), b"", 0
    for piece in _small(pieces):
        taken += len(piece)
        try:
            found += packer.decompress(piece, most - len(found))
        except (zlib.error, OSError, EOFError):
            return found
        if len(found) >= most or packer.eof:
            return found
        if taken >= _MOST_PACKED[method]:  # so much that unpacks to next to nothing hides something
            return None
    return found or (None if taken else b"")


def _small(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Of what breaks off in a piece, nothing of that piece comes out, though readers of other pieces get most of it."""
    for piece in pieces:
        yield from (piece[at : at + _FEW] for at in range(0, len(piece), _FEW))


def _pieces(fd: int, at: int, end: int) -> Iterator[bytes]:
    while at < end and (piece := os.pread(fd, min(_PIECE, end - at), at)):
        at += len(piece)
        yield piece


def _entries(fd: int, size: int) -> Iterator[_Entry]:
    begin, end, shift = _directory(fd, size)
    if begin < 0:
        return
    held = b""
    read = begin
    for piece in _pieces(fd, begin, end):
        held, read, at = held + piece, read + len(piece), 0
        while len(held) >= at + _ENTRY.size:
            fields = _ENTRY.unpack_from(held, at)
            if fields[0] != _ENTRY_MARK:
                return
            name, extra, comment = fields[10:13]
            after = at + _ENTRY.size + name + extra + comment
            # What runs past the directory is taken as far as it goes, as by `zipfile`.
            if len(held) < after and read < end:
                break
            begun = at + _ENTRY.size + name
            packed, offset = _wide(held[begun : begun + extra], fields[9], fields[8], fields[16])
            if 0 <= offset + shift < size:
                yield _Entry(held[begun - name : begun], fields[4], packed, offset + shift)
            at = after
        held = held[at:]


def _wide(extra: bytes, whole: int, packed: int, offset: int) -> tuple[int, int]:
    """Packed size and offset, of which the numbers that need more than 32 bits stand in an extra field."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == 1:
            numbers = iter(struct.unpack_from(f"<{min(length, len(extra) - 4) // 8}Q", extra, 4))
            if whole == _FILLED:
                next(numbers, 0)
            packed = next(numbers, packed) if packed == _FILLED else packed
            offset = next(numbers, offset) if offset == _FILLED else offset
            break
        extra = extra[4 + length :]
    return packed, offset


def _directory(fd: int, size: int) -> tuple[int, int, int]:
    """Where the directory begins and ends, and by how much offsets are too small for what was put before the zip."""
    reach = min(size, _END.size + 2**16)
    tail = os.pread(fd, reach, size - reach)
    last = len(tail) - _END.size
    # A mark inside of the record itself is none, where there is no comment that could hold one.
    plain = last >= 0 and tail.startswith(_END_MARK, last) and tail.endswith(b"\0\0")
    at = last if plain else tail.rfind(_END_MARK)
    if at < 0 or len(tail) < at + _END.size:
        return 0, 0, 0
    length, offset = _END.unpack_from(tail, at)[5:7]
    end = size - reach + at
    if (place := end - _LOCATOR.size) >= 0:
        locator = os.pread(fd, _LOCATOR.size, place)
        wide = os.pread(fd, _WIDE_END.size, max(0, place - _WIDE_END.size))
        if locator.startswith(b"PK\x06\x07") and wide.startswith(b"PK\x06\x06") and len(wide) == _WIDE_END.size:
            length, offset = _WIDE_END.unpack(wide)[-2:]
            end = place - _WIDE_END.size
    return end - length, end, end - length - offset

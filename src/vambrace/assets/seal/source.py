"""A sealed file on disk as bytes at offsets: read into buffers that are there, by any number of threads.

Positioned reads, not a memory map: a file that shrinks under its reader is refused here, and would kill the process
there; and the copy into a buffer that stays in the processor's cache costs less than the map's page faults.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Protocol, Self

from vambrace.assets.seal.refusals import cut_short
from vambrace.core.disk import unreadable
from vambrace.errors import ConfigError, NotThere, ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["FileSource", "FileStream", "Stream", "fill", "next_bytes", "nothing_at", "read_pieces", "rest"]

_PIECE = 2**20


class Stream(Protocol):
    """Sealed bytes one after the other."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Put bytes into `buffer` and say how many; 0 at the end."""
        ...


class FileSource:
    """An open regular file.

    Args:
        fd: its descriptor, which belongs to this object from now on.
        name: for messages.

    Attributes:
        name: as given.
        size: bytes in the file when it was opened.
    """

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self.name = name
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            self.close()
            raise ResourceError(
                "E604",
                seen=f"{name}, which is no regular file",
                expected="a file that can be read at any place",
                fix="read a pipe or device as a stream",
            )
        self.size = found.st_size

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the file at `path`.

        Raises:
            NotThere: E776, a FileNotFoundError: there is none.
            ResourceError: E604, when it cannot be read or is no regular file.
        """
        try:
            # Without O_NONBLOCK, the open of a pipe that nobody writes to would never return.
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, ValueError) as error:  # ValueError: a null byte in the path
            raise nothing_at(path) from error
        except OSError as error:
            raise unreadable(str(path), error) from error
        return cls(fd, str(path))

    def read_into(self, offset: int, out: memoryview) -> None:
        """Fill `out` with the bytes from `offset` on.

        Raises:
            ArtifactRefused: E706, when the file ends before.
            ResourceError: E604, when it cannot be read.
        """
        while out:
            try:
                got = os.preadv(self._fd, [out], offset)
            except OSError as error:
                raise unreadable(self.name, error) from error
            if not got:
                raise cut_short(f"the end of the file at byte {offset}")
            out, offset = out[got:], offset + got

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on; a size that the file named has been bounded before. Raises as `read_into`."""
        out = bytearray(size)
        self.read_into(offset, memoryview(out))
        return bytes(out)

    def stream(self, offset: int) -> FileStream:
        """The bytes from `offset` on, one after the other, to the end that the file had when it was opened."""
        return FileStream(self, offset)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Release the file; twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class FileStream:
    """A `FileSource` from one place on."""

    def __init__(self, source: FileSource, offset: int) -> None:
        self._source = source
        self._offset = offset

    def readinto(self, buffer: memoryview, /) -> int:
        """Put bytes into `buffer`; how many, 0 at the end."""
        size = max(0, min(len(buffer), self._source.size - self._offset))
        self._source.read_into(self._offset, buffer[:size])
        self._offset += size
        return size


def fill(stream: Stream, out: memoryview) -> int:
    """Fill `out` from `stream`; how many bytes there were before its end.

    Raises:
        ResourceError: E604, when it cannot be read.
    """
    done = 0
    while done < len(out) and (got := next_bytes(stream, out[done:])):
        done += got
    return done


def rest(stream: Stream) -> bytes:
    """All that is left of `stream`. Raises as `next_bytes`."""
    found, piece = bytearray(), memoryview(bytearray(_PIECE))
    while got := next_bytes(stream, piece):
        found += piece[:got]
    return bytes(found)


def next_bytes(stream: Stream, out: memoryview) -> int:
    """Put the next bytes of `stream` into `out`; how many, 0 at its end.

    Raises:
        ResourceError: E604, when it cannot be read, or has nothing for now and does not wait: that is no end.
    """
    try:
        got = stream.readinto(out)
    except OSError as error:
        raise unreadable("the stream", error) from error
    if got is None:
        raise unreadable("the stream", BlockingIOError(errno.EAGAIN, "nothing there for now"))
    return got


def read_pieces(path: Path, size: int, *, piece: int, follow: bool = True) -> Iterator[memoryview]:
    """The bytes of the file at `path`, one buffer after the other, which is the same one each time.

    Args:
        path: the file.
        size: how many there are, as was told before.
        piece: bytes of the buffer.
        follow: links.

    Raises:
        ConfigError: E763, for a file that is no longer what it was.
        ResourceError: E604, when it cannot be read.
    """
    buffer, done = memoryview(bytearray(min(size, piece) + 1)), 0
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        with open(os.open(path, flags), "rb", buffering=0) as stream:  # noqa: PTH123  opened with these flags
            while got := stream.readinto(buffer):
                done += got
                if done > size:
                    break
                yield buffer[:got]
    except OSError as error:
        raise unreadable(str(path), error) from error
    if done != size:
        raise ConfigError(
            "E763",
            seen=f"{path.name} changed while it was read: {size} bytes before, now {'more' if done > size else done}",
            expected="files that nobody writes to",
            fix="wait until they are complete, then seal again",
        )


def nothing_at(path: Path, what: str = "a sealed file") -> NotThere:
    """E776: nothing is at `path`, where `what` is needed."""
    return NotThere(
        "E776", seen=f"nothing at {path}", expected=what, fix="check the path and the permissions of its folders"
    )

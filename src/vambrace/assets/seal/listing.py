r"""Lists of files in canonical JSON, as strangers write them: read entry by entry, to the first byte that does not fit.

>>> [(each.path, each.size) for each in listed(b'{"files":[{"path":"a/b","size":3}]}', SIZED, b"]}", most=10)]
[('a/b', 3)]

A parser of any JSON builds what it reads before somebody can look at it: a few bytes of `[{},{},...]` become an object
each. Here every entry is at least as long as its own text says, none is read past the bound, and nothing nests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HASHED", "Listed", "MOST_PATH", "SIZED", "listed"]

MOST_PATH: Final = 4096  # bytes, as Linux has it
_MOST_SIZE: Final = 2**53
_BEGIN: Final = b'{"files":['
# Of what canonical JSON escapes, a path can have the quotation mark only: the rest are no characters of paths.
# Possessive, so that a path without end is gone over once.
_PATH: Final = rb'\{"path":"(?P<path>[^"\\\x00-\x1f]*+(?:\\"[^"\\\x00-\x1f]*+){0,4096}+)"'
_SIZE: Final = rb',"size":(?P<size>0|[1-9][0-9]{0,15})\}'
SIZED: Final = re.compile(_PATH + _SIZE)
HASHED: Final = re.compile(_PATH + rb',"sha256":"(?P<sha256>[0-9a-f]{64})"' + _SIZE)


@dataclass(frozen=True, slots=True)
class Listed:
    """One file of a list: its path, not checked but for its length; its SHA-256 in hex, or ""; its bytes."""

    path: str
    sha256: str
    size: int


def listed(text: bytes, entry: re.Pattern[bytes], end: bytes, *, most: int) -> Iterator[Listed]:
    """The files that `text` lists, in its order; when there are no more, all of it was canonical JSON.

    Args:
        text: `{"files":[`, entries with commas between them, and `end`.
        entry: `SIZED` or `HASHED`.
        end: `]}`, or more.
        most: files that there may be.

    Raises:
        ValueError: while they are taken, where the text is not as it has to be.
    """
    if not text.startswith(_BEGIN):
        raise ValueError("it is no list of files in canonical JSON")
    at = len(_BEGIN)
    if _ends(text, at, end):
        return
    for count in range(most):
        found = entry.match(text, at)
        if found is None:
            raise ValueError(f"its file {count + 1} is not written as it has to be")
        path, hashed, size = found["path"].replace(b'\\"', b'"'), found.groupdict().get("sha256"), int(found["size"])
        if len(path) > MOST_PATH or size > _MOST_SIZE:
            raise ValueError(f"its file {count + 1} has a path of {len(path)} bytes and itself {size}")
        yield Listed(path.decode(), hashed.decode() if hashed else "", size)
        at = found.end()
        if _ends(text, at, end):
            return
        if not text.startswith(b",", at):
            raise ValueError(f"what follows its file {count + 1} is neither another one nor the end")
        at += 1
    raise ValueError(f"it names more than {most} files")


def _ends(text: bytes, at: int, end: bytes) -> bool:
    return len(text) == at + len(end) and text.endswith(end)

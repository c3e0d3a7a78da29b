"""Where encoded images lie: a folder, or a zip that is read in place. Both list paths with "/" and read one file whole.

Links in a folder are followed, because real sets are built of them, except where they lead in a circle, nowhere, or
to a folder that holds the set itself. Pipes, sockets and devices are never opened.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from zipfile import ZipFile

from vambrace.data.archive import check_members, open_archive
from vambrace.data.expansion import MAX_MEMBER, readable_size
from vambrace.data.images import Unusable

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FolderTree", "Listing", "Tree", "ZipTree", "is_hidden", "readable"]


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies in a tree, sorted by path.

    Attributes:
        files: paths of regular files.
        folders: paths of folders.
        problems: (path, reason) of what can be neither read nor entered.
        hidden: how many hidden files and folders there are; they are in none of the others.
    """

    files: tuple[str, ...]
    folders: tuple[str, ...]
    problems: tuple[tuple[str, str], ...]
    hidden: int


class Tree(Protocol):
    """Files under one root."""

    def listing(self) -> Listing:
        """Everything in the tree."""
        ...

    def read(self, path: str, most: int = MAX_MEMBER) -> bytes:
        """The whole file, or its first bytes where `most` is less than `MAX_MEMBER`; `Unusable` with the reason."""
        ...


def readable(name: str) -> str:
    r"""A file's name for people, JSON and terminals: what is not UTF-8 or not printable is escaped.

    >>> readable("x\udce9"), readable("a\x1b[31m")
    ('x\\xe9', 'a\\x1b[31m')
    """
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def is_hidden(part: str) -> bool:
    """Whether a file or folder of this name is a system's and not the user's."""
    return part.startswith(".") or part in {"__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini"}


@dataclass(frozen=True, slots=True)
class FolderTree:
    """A folder on disk."""

    root: Path

    def listing(self) -> Listing:
        """Everything in the folder, by one walk."""
        files: list[str] = []
        folders: list[str] = []
        problems: list[tuple[str, str]] = []
        hidden = 0
        root = self.root.resolve()
        waiting = [("", frozenset(_identity(folder) for folder in (root, *root.parents)))]
        while waiting:
            folder, above = waiting.pop()
            try:
                entries = list(os.scandir(self.root / folder))
            except OSError as error:
                problems.append((folder, f"cannot be listed: {error.strerror}"))
                continue
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if is_hidden(entry.name):
                    hidden += 1
                    continue
                try:
                    kind = entry.stat().st_mode
                    if stat.S_ISREG(kind):
                        files.append(path)
                    elif not stat.S_ISDIR(kind):
                        problems.append((path, "is not a regular file"))
                    elif (identity := _identity(Path(entry.path))) in above:
                        problems.append((path, "is a link to a folder that it lies in"))
                    else:
                        folders.append(path)
                        waiting.append((path, above | {identity}))
                except OSError as error:
                    problems.append((path, f"cannot be read: {error.strerror}"))
        return Listing(tuple(sorted(files)), tuple(sorted(folders)), tuple(sorted(problems)), hidden)

    def read(self, path: str, most: int = MAX_MEMBER) -> bytes:
        """The whole file or its head."""
        try:
            with open(self.root / path, "rb", opener=_opener) as file:  # noqa: PTH123  Path.open takes no opener
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode):
                    raise Unusable("is not a regular file")
                if most >= MAX_MEMBER and found.st_size > MAX_MEMBER:
                    raise Unusable(
                        f"is a file of {readable_size(found.st_size)}, over the cap of {readable_size(MAX_MEMBER)}"
                    )
                return file.read(most)
        except OSError as error:
            raise Unusable(f"cannot be read: {error.strerror or error}") from error


@dataclass(slots=True, eq=False)
class ZipTree:
    """A zip file, read in place; a copy in another process opens the file again."""

    path: Path
    _open: tuple[int, ZipFile] | None = field(default=None, init=False, repr=False)

    def __getstate__(self) -> Path:
        return self.path

    def __setstate__(self, path: Path) -> None:
        self.path, self._open = path, None

    def listing(self) -> Listing:
        """Everything in the archive, once all of it is safe."""
        members = check_members(self._archive(), self.path)
        visible = [info for info in members if not any(is_hidden(part) for part in info.filename.split("/"))]
        files = {info.filename for info in visible if not info.is_dir()}
        folders = {parent for name in files for parent in _parents(name)}
        folders |= {info.filename.rstrip("/") for info in visible if info.is_dir()}
        return Listing(tuple(sorted(files)), tuple(sorted(folders)), (), len(members) - len(visible))

    def read(self, path: str, most: int = MAX_MEMBER) -> bytes:
        """The whole member or its head."""
        archive = self._archive()
        try:
            info = archive.getinfo(path)
            if most >= MAX_MEMBER and info.file_size > MAX_MEMBER:
                raise Unusable(
                    f"is a file of {readable_size(info.file_size)}, over the cap of {readable_size(MAX_MEMBER)}"
                )
            with archive.open(info) as file:
                return file.read(most)
        except Unusable:
            raise
        except Exception as error:  # the errors of zipfile and its decompressors have no common root
            raise Unusable(f"cannot be unpacked: {error}") from error

    def _archive(self) -> ZipFile:
        # A forked process shares the file position of its parent: it needs a handle of its own.
        if self._open is None or self._open[0] != os.getpid():
            self._open = os.getpid(), open_archive(self.path)
        return self._open[1]


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _opener(path: str, flags: int) -> int:
    # Without O_NONBLOCK, a pipe that took a file's place between listing and reading would hang the run.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _parents(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name

"""Zip files that are read in place: what makes one hostile or ambiguous is refused before any member is opened.

Nothing is ever extracted, so a slipping name could not escape; it is refused all the same, because an honest tool
does not write one and the next tool may extract it. Sizes are those of the directory; reading a member stops there.
"""

from __future__ import annotations

import stat
import zipfile
from typing import TYPE_CHECKING

from vambrace.data.expansion import MAX_RATIO, SMALL, readable_size
from vambrace.errors import DataRefused

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_members", "open_archive"]

_MOST_MEMBERS = 5_000_000
_ENCRYPTED = 0x1
_SPECIAL = {
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")


def open_archive(path: Path) -> zipfile.ZipFile:
    """The zip file at `path`, open for reading.

    Raises:
        DataRefused: E311 for a broken file, E313 for names that are not text.
    """
    try:
        return zipfile.ZipFile(path)
    except UnicodeDecodeError as error:
        raise _unsafe(path, "a member whose name is not valid UTF-8") from error
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise DataRefused(
            "E311",
            seen=f"{path.name} cannot be opened as a zip file: {error}",
            expected="a whole zip file",
            fix="copy or download the file again",
        ) from error


def check_members(archive: zipfile.ZipFile, path: Path) -> list[zipfile.ZipInfo]:
    """The members of a zip file, folders included, once all of them are safe.

    Raises:
        DataRefused: E312 where they declare to unpack to too much, E313 for an unsafe or ambiguous member.
    """
    members = archive.infolist()
    if len(members) > _MOST_MEMBERS:
        raise _unsafe(path, f"{len(members)} members")
    packed = path.stat().st_size
    total = sum(info.file_size for info in members)
    if total > SMALL and total > MAX_RATIO * packed:
        raise _bomb(path, f"{readable_size(total)} from {readable_size(packed)}")
    names: set[str] = set()
    spelled: dict[str, str] = {}
    for info in members:
        if problem := _problem(info):
            raise _unsafe(path, problem)
        if info.file_size > SMALL and info.file_size > MAX_RATIO * max(info.compress_size, 1):
            raise _bomb(
                path, f"{readable_size(info.file_size)} from {readable_size(info.compress_size)} in {info.filename!a}"
            )
        if info.filename in names:
            raise _unsafe(path, f"the name {info.filename!a} twice")
        names.add(info.filename)
        for prefix in _prefixes(info.filename):
            other = spelled.setdefault(prefix.casefold(), prefix)
            if other != prefix:
                raise _unsafe(path, f"the names {other!a} and {prefix!a}, which are one on some systems")
    return members


def _prefixes(name: str) -> list[str]:
    """A path and the folders on the way to it.

    >>> _prefixes("a/b/c.png")
    ['a', 'a/b', 'a/b/c.png']
    """
    parts = name.rstrip("/").split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]


def _problem(info: zipfile.ZipInfo) -> str | None:
    """Why a member is unsafe, in words that follow "holds"."""
    name = info.filename
    if info.flag_bits & _ENCRYPTED:
        return f"the encrypted member {name!a}"
    if "\0" in info.orig_filename:
        return f"a member with a zero byte in its name, {info.orig_filename!a}"
    if "\\" in name:
        return f"the name {name!a}, with a backslash"
    if name.startswith("/") or (len(name) > 1 and name[1] == ":"):
        return f"the absolute path {name!a}"
    if ".." in name.split("/"):
        return f"the path {name!a}, which leads out of the archive"
    if (kind := _SPECIAL.get(stat.S_IFMT(info.external_attr >> 16))) is not None:
        return f"the {kind} {name!a}"
    if name.lower().endswith(_ARCHIVES):
        return f"another archive, {name!a}"
    return None


def _unsafe(path: Path, seen: str) -> DataRefused:
    return DataRefused(
        "E313",
        seen=f"{path.name} holds {seen}",
        expected="a zip of plain files with plain, distinct names",
        fix="unpack it where that does no harm, look at it, and pack the class folders again",
    )


def _bomb(path: Path, seen: str) -> DataRefused:
    return DataRefused(
        "E312",
        seen=f"{path.name} declares {seen}",
        expected=f"at most {MAX_RATIO} times the packed size",
        fix="do not unpack it; if the data is real, give it as a folder",
    )

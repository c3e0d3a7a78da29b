"""What a detached signature is for: the content of a file, or of every file of a folder.

    before = of(folder)
    ...
    before == of(folder), differences(before, of(folder))  # what was changed, added, removed

Guarantees: two subjects are equal exactly when the files are the same byte for byte under the same names; links and
special files are refused, not followed. What counts as part of a folder is in docs/formats/signature-v1.md; files that
do not are named.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import stat
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from vambrace.assets.seal.listing import HASHED, listed
from vambrace.core.disk import unreadable
from vambrace.errors import ArtifactRefused, ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Differences", "Entry", "Subject", "differences", "listed_paths", "of", "shown"]

MOST_FILES: Final = 100_000
_FILE = re.compile(rb'\{"kind":"file","sha256":"([0-9a-f]{64})","size":(0|[1-9][0-9]{0,15})\}')
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\\\\\ud800-\udfff]")
_LEFTOVER = re.compile(r"\..+\.[0-9]+(\.[0-9a-f]{8})?\.tmp", re.DOTALL)
_RUN: Final = {"plan.json", "journal"}
_BLOCK: Final = 2**20


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: where (relative to the folder; "" for a subject that is a file), its SHA-256 in hex, its bytes."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Subject:
    """The content of a file or folder.

    Attributes:
        kind: which.
        files: sorted by path; of a file exactly one.
        passed: paths of files that are there and do not count, sorted; they make no difference.
    """

    kind: Literal["file", "folder"]
    files: tuple[Entry, ...]
    passed: tuple[str, ...] = field(default=(), compare=False)

    def as_json(self) -> dict[str, object]:
        """As the second line of a signature says it."""
        if self.kind == "file":
            return {"kind": "file", "sha256": self.files[0].sha256, "size": self.files[0].size}
        listed = [{"path": each.path, "sha256": each.sha256, "size": each.size} for each in self.files]
        return {"kind": "folder", "files": listed}

    @classmethod
    def read(cls, line: bytes) -> Subject:
        """The subject in the line of a signature; raises ValueError for any other bytes."""
        if found := _FILE.fullmatch(line):
            size = int(found[2])
            if size > 2**53:
                raise ValueError(f"its file has {size} bytes")
            return cls("file", (Entry("", found[1].decode(), size),))
        files: list[Entry] = []
        before = ""
        for each in listed(line, HASHED, b'],"kind":"folder"}', most=MOST_FILES):
            if not _fits(each.path) or each.path <= before:
                raise ValueError("its paths are no paths, not in order, or not each there once")
            files.append(Entry(each.path, each.sha256, each.size))
            before = each.path
        return cls("folder", tuple(files))


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """Paths that differ between two subjects, each sorted; of two files that differ, `changed` is ("",)."""

    changed: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.changed or self.added or self.removed)

    def __str__(self) -> str:
        kinds = (("changed", self.changed), ("added", self.added), ("removed", self.removed))
        return "; ".join(f"{what}: {listed_paths(paths)}" for what, paths in kinds if paths)


def of(path: Path, progress: Callable[[int, int | None], None] | None = None) -> Subject:
    """What is at `path` now.

    Args:
        path: a file or folder.
        progress: called with the bytes that were read, and None, since a folder is looked at as it is read; at the end
            with as many as there are.

    Raises:
        ArtifactRefused: E747, for links, devices, pipes and sockets, and for names that cannot be written down.
        ResourceError: E600, for a run that is being written; E604, when something cannot be read.
    """
    found, done = _status(path, follow=True), 0

    def hear(size: int, *, end: bool = False) -> None:
        nonlocal done
        done += size
        if progress:
            progress(done, done if end else None)

    files: list[Entry] = []
    passed: list[str] = []
    if stat.S_ISREG(found.st_mode):
        files.append(_hashed(path, "", hear, follow=True))
    elif not stat.S_ISDIR(found.st_mode):
        raise _refused(path, "neither a file nor a folder")
    else:
        with ExitStack() as held:
            for each, relative in _walk(path, held, passed):
                if len(files) == MOST_FILES:
                    raise _refused(path, f"a folder of more than {MOST_FILES} files")
                files.append(_hashed(each, relative, hear, follow=False))
    hear(0, end=True)
    kind = "file" if stat.S_ISREG(found.st_mode) else "folder"
    return Subject(kind, tuple(sorted(files, key=lambda each: each.path)), tuple(sorted(passed)))


def differences(signed: Subject, now: Subject) -> Differences:
    """What is other `now` than it was when it was `signed`; a file in place of a folder has all of it changed."""
    if signed.kind != now.kind:
        return Differences(changed=("",), added=(), removed=())
    old = {each.path: each for each in signed.files}
    new = {each.path: each for each in now.files}
    return Differences(
        changed=tuple(sorted(path for path in old.keys() & new.keys() if old[path] != new[path])),
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
    )


def shown(path: str) -> str:
    """A path for messages: characters that could control a terminal, or that are none, are written as escapes."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in path)


def listed_paths(paths: Sequence[str]) -> str:
    """A few of them for messages, and how many more there are."""
    named = ", ".join(shown(path) or "its content" for path in paths[:5])
    return named if len(paths) <= 5 else f"{named} and {len(paths) - 5} more"


def _walk(top: Path, held: ExitStack, passed: list[str]) -> Iterator[tuple[Path, str]]:
    """The files that count, and their paths in `top`; those of others are added to `passed`.

    The `LOCK` of a run is held, shared, until `held` ends.
    """
    folders = [top]
    while folders:
        folder = folders.pop()
        try:
            names = set(os.listdir(folder))
        except OSError as error:
            raise unreadable(shown(str(folder)), error) from error
        for name in sorted(names):
            path = folder / name
            mode = _status(path, follow=False).st_mode
            if stat.S_ISDIR(mode):
                folders.append(path)
            elif not stat.S_ISREG(mode):
                raise _refused(path, "a link" if stat.S_ISLNK(mode) else "a device, pipe or socket")
            elif name == "LOCK" and names >= _RUN:
                _at_rest(path, held)
                passed.append(path.relative_to(top).as_posix())
            elif _LEFTOVER.fullmatch(name):
                passed.append(path.relative_to(top).as_posix())
            else:
                relative = path.relative_to(top).as_posix()
                if not _fits(relative):
                    raise _refused(path, "a name with control characters, a backslash, or bytes that are no text")
                yield path, relative


def _hashed(path: Path, relative: str, hear: Callable[[int], None], *, follow: bool) -> Entry:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    try:
        fd = os.open(path, flags)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise _refused(path, "no file any more")
            digest, size = hashlib.sha256(), 0
            buffer = memoryview(bytearray(_BLOCK))
            while count := os.readv(fd, [buffer]):
                digest.update(buffer[:count])
                size += count
                hear(count)
        finally:
            os.close(fd)
    except OSError as error:
        raise unreadable(shown(str(path)), error) from error
    return Entry(relative, digest.hexdigest(), size)


def _at_rest(lock: Path, held: ExitStack) -> None:
    """Refuse a run that somebody is writing to, and keep others from beginning."""
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        held.callback(os.close, fd)
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ResourceError(
            "E600",
            seen=f"{shown(str(lock.parent))} is in use by another process",
            expected="a run that has ended",
            fix="wait for it to end",
        ) from None
    except OSError as error:
        # Where there are no locks, nobody can hold one.
        if error.errno not in {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}:
            raise unreadable(shown(str(lock)), error) from error


def _status(path: Path, *, follow: bool) -> os.stat_result:
    try:
        return path.stat(follow_symlinks=follow)
    except OSError as error:
        raise unreadable(shown(str(path)), error) from error


def _fits(path: str) -> bool:
    """Whether a path can stand in a signature."""
    return not _CONTROL.search(path) and all(part not in {"", ".", ".."} for part in path.split("/"))


def _refused(path: Path, seen: str) -> ArtifactRefused:
    return ArtifactRefused(
        "E747",
        seen=f"{shown(str(path))}: {seen}",
        expected="files and folders with plain names",
        fix="put the file itself where the link is, or move what cannot be signed out of the folder",
    )

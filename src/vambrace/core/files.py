"""Files that survive a crash: every durable write of the product goes through these few functions.

A file appears under its name whole or not at all (temporary file, fsync, rename, fsync of the
folder). Appends are fsynced before they count. System calls are reached through the module value
`system`, so that tests can make the N-th of them fail or kill the process there.

Failures of writing become `ResourceError` E601 with the path and the free space left, failures of reading E604. What is
replaced is a file: devices, pipes and sockets are refused, E605.
Not for secrets, except by `create_file` with a mode: files are readable by everybody whom the folder admits.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from typing import TYPE_CHECKING

from vambrace.core.cleanup import undisturbed
from vambrace.core.disk import refuse_special, unreadable, unwritable
from vambrace.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

__all__ = [
    "Appender",
    "Draft",
    "System",
    "create_file",
    "draft_name",
    "make_folder",
    "overwrite",
    "publish",
    "read_file",
    "remove",
    "store",
    "sweep",
    "system",
    "write_file",
]

_LONGEST_STEM = 230  # bytes; file systems take 255, and a process's number and random digits follow
# Never a file that is there, nor one that a link there leads to.
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)


class System:
    """The system calls that durability rests on."""

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """`os.write`."""
        return os.write(fd, data)

    def fsync(self, fd: int) -> None:
        """`os.fsync`."""
        os.fsync(fd)

    def truncate(self, fd: int, size: int) -> None:
        """`os.ftruncate`."""
        os.ftruncate(fd, size)

    def replace(self, source: Path, target: Path) -> None:
        """`os.replace`."""
        os.replace(source, target)  # noqa: PTH105  the call that the shim counts

    def mkdir(self, path: Path) -> None:
        """`os.mkdir`."""
        path.mkdir()

    def unlink(self, path: Path) -> None:
        """`os.unlink`."""
        path.unlink()


system = System()


def make_folder(path: Path) -> None:
    """Create `path` and its missing parents durably; an existing folder is fine."""
    if os.path.isdir(path):
        return
    if path.parent != path:
        make_folder(path.parent)
    with _explained(path):
        # Another process may have made it since we looked; a file in its place is an error all the same.
        with contextlib.suppress(FileExistsError):
            system.mkdir(path)
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(path))
        _sync_folder(path.parent)


def write_file(path: Path, data: bytes) -> None:
    """Put `data` at `path`, replacing what was there, whole or not at all."""
    _fill(Draft(path), data)


def create_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Put `data` at `path`, where nothing may be yet; after a kill there may be an empty file, but never half of one.

    Args:
        path: the new file.
        data: its bytes.
        mode: permissions, from its first moment on; the process's umask takes from them.

    Raises:
        FileExistsError: there is something at `path`.
        ResourceError: E601, when it cannot be written.
    """
    _fill(Draft(path, mode=mode, fresh=True), data)


def read_file(path: Path) -> bytes:
    """The bytes of the file at `path`.

    Raises:
        FileNotFoundError: there is none.
        ResourceError: E604, when it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unreadable(str(path), error) from error


def store(folder: Path, data: bytes, suffix: str) -> str:
    """Content-addressed: put `data` at `folder/<sha256><suffix>` once and return that file name."""
    name = hashlib.sha256(data).hexdigest() + suffix
    target = folder / name
    if not target.exists():
        make_folder(folder)
        write_file(target, data)
    return name


def publish(prepared: Path, target: Path) -> None:
    """Give the folder `prepared` its final name beside it, with all that is in it, at once.

    Raises:
        FileExistsError: `target` is there and is not an empty folder.
        ResourceError: E601, when it cannot be renamed.
    """
    with _explained(target):
        try:
            system.replace(prepared, target)
        except OSError as error:
            if error.errno in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR} and os.path.lexists(target):
                raise _Taken(errno.EEXIST, "taken", str(target)) from error
            raise
        _sync_folder(target.parent)


def overwrite(fd: int, offset: int, data: bytes, *, path: Path) -> None:
    """Put `data` over the bytes from `offset` on, durably: the one write here that a crash can leave half done.

    Args:
        fd: of an open file; its position changes.
        offset: in bytes.
        data: what goes there.
        path: of the file, for messages.

    Raises:
        ResourceError: E601, when it cannot be written.
    """
    with _explained(path):
        os.lseek(fd, offset, os.SEEK_SET)
        _write_all(fd, data)
        system.fsync(fd)


def remove(path: Path) -> None:
    """Remove the file at `path`, durably.

    Raises:
        ResourceError: E601, when it cannot be removed.
    """
    with _explained(path):
        system.unlink(path)
        _sync_folder(path.parent)


def draft_name(name: str) -> str:
    """What the name of a draft begins with, behind a dot: the file's own, as much of it as leaves room for the rest."""
    letters = os.fsencode(name)
    return letters[:_LONGEST_STEM].decode("utf-8", "ignore") if len(letters) > _LONGEST_STEM else name


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed processes left in `folder`; what cannot be removed stays."""
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            if entry.name.startswith(".") and entry.name.endswith(".tmp"):
                entry.unlink()


class Draft:
    """A file written bit by bit under another name beside its own; `commit` puts it there, whole and durable.

    Args:
        path: where it will be, replacing what is there.
        mode: permissions, from its first moment on; the process's umask takes from them.
        fresh: replace nothing, also not what appears there before `commit`.
        like: descriptor of a file whose owner and permissions it gets instead, as far as the system lets us.

    Raises:
        FileExistsError: with `fresh`, here and by `commit`: there is something at `path`.
        ResourceError: E601, when it cannot be written; E605, for a device, pipe or socket, which is never replaced.
    """

    def __init__(self, path: Path, *, mode: int = 0o644, fresh: bool = False, like: int | None = None) -> None:
        self.path = path
        self._fresh = fresh
        if fresh and os.path.lexists(path):
            raise _Taken(errno.EEXIST, "taken", str(path))
        refuse_special(path)
        with _explained(path):
            self._fd, self._temporary = _beside(path, mode if like is None else 0o600)
        if like is not None:
            _resemble(self._fd, os.fstat(like))

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append `data`, all of it; how many bytes that were."""
        with _explained(self.path):
            _write_all(self._fd, data)
        return len(data)

    def commit(self) -> None:
        """Make it durable and give it its name; what fails leaves no file behind."""
        try:
            with _explained(self.path):
                system.fsync(self._fd)
                self._close()
                if self._fresh:
                    _move(self._temporary, self.path)
                else:
                    system.replace(self._temporary, self.path)
        except BaseException:
            self.discard()
            raise
        with _explained(self.path):
            _sync_folder(self.path.parent)

    def discard(self) -> None:
        """Forget it, unless it is committed; twice is fine."""
        with undisturbed():
            self._close()
            with contextlib.suppress(OSError):
                self._temporary.unlink()

    def _close(self) -> None:
        if (fd := self._fd) >= 0:
            self._fd = -1  # first: after a signal in between, a second close would fail, and the file stay
            os.close(fd)


class Appender:
    """An append-only file; `append` returns after the bytes are on the disk.

    A failed append is cut back off the file, so that a later record never follows torn bytes; where even that fails,
    the appender refuses to write again.

    Args:
        path: the file; created where there is none.
        size: cut the file back to this many bytes first; None keeps all.
    """

    def __init__(self, path: Path, *, size: int | None = None) -> None:
        self.path = path
        self._torn = False
        with _explained(path):
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                if size is not None and size != os.fstat(self._fd).st_size:
                    system.truncate(self._fd, size)
                    system.fsync(self._fd)
                _sync_folder(path.parent)
            except BaseException:
                self.close()
                raise

    def append(self, data: bytes) -> None:
        """Write and fsync `data` at the end."""
        with _explained(self.path):
            if self._torn:
                raise OSError(errno.EIO, "an earlier append is still torn")
            size = os.fstat(self._fd).st_size
            self._torn = True
            try:
                _write_all(self._fd, data)
                system.fsync(self._fd)
            except OSError:
                with contextlib.suppress(OSError):
                    system.truncate(self._fd, size)
                    self._torn = False
                raise
            self._torn = False

    def close(self) -> None:
        """Release the file; twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _fill(draft: Draft, data: bytes) -> None:
    try:
        draft.write(data)
        draft.commit()
    finally:
        draft.discard()


def _move(source: Path, target: Path) -> None:
    """Rename to a name that is free, and taken by an empty file first: of two that want it one is refused.

    That works on every file system. No signal comes between, which would leave the empty file or remove the whole one.
    """
    with undisturbed():
        try:
            os.close(os.open(target, _NEW, 0o600))
        except FileExistsError as error:
            raise _Taken(errno.EEXIST, "taken", str(target)) from error
        try:
            system.replace(source, target)
        except BaseException:
            with contextlib.suppress(OSError):
                target.unlink()
            raise


def _beside(path: Path, mode: int) -> tuple[int, Path]:
    """A new file beside `path`, by its descriptor and its name: one that nobody else can have put something at."""
    if not path.name:
        raise IsADirectoryError(errno.EISDIR, "no name for a file", str(path))
    temporary = path.with_name(f".{draft_name(path.name)}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    return os.open(temporary, _NEW, mode), temporary


def _resemble(fd: int, other: os.stat_result) -> None:
    """Give a new file another one's owner, group and permissions; not those of a group that cannot be given."""
    mine, mode = os.fstat(fd), stat.S_IMODE(other.st_mode) & 0o666
    with contextlib.suppress(OSError):
        if other.st_uid != mine.st_uid:
            os.fchown(fd, other.st_uid, -1)
    try:
        if other.st_gid != mine.st_gid:
            os.fchown(fd, -1, other.st_gid)
    except OSError:
        mode &= ~0o060
    with contextlib.suppress(OSError):
        os.fchmod(fd, mode)


class _Taken(FileExistsError):
    """Told apart from every other failure of a rename, because the caller can answer it."""


def _write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[system.write(fd, view) :]


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        system.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _explained(path: Path) -> Generator[None]:
    try:
        yield
    except (ResourceError, _Taken):
        raise
    except OSError as error:
        raise unwritable(path, error) from error

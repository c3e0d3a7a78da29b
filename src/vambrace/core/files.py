"""Files that survive a crash: every durable write of the product goes through these few functions.

A file appears under its name whole or not at all (temporary file, fsync, rename, fsync of the
folder). Appends are fsynced before they count. System calls are reached through the module value
`system`, so that tests can make the N-th of them fail.

Failures become `ResourceError` E601 with the path and the free space left.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from typing import TYPE_CHECKING

from vambrace.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Appender", "System", "make_folder", "store", "system", "write_file"]


class System:
    """The system calls that durability rests on."""

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """`os.write`."""
        return os.write(fd, data)

    def fsync(self, fd: int) -> None:
        """`os.fsync`."""
        os.fsync(fd)

    def replace(self, source: Path, target: Path) -> None:
        """`os.replace`."""
        os.replace(source, target)  # noqa: PTH105  the call that the shim counts

    def mkdir(self, path: Path) -> None:
        """`os.mkdir`."""
        path.mkdir()


system = System()


def make_folder(path: Path) -> None:
    """Create `path` and its missing parents durably; an existing folder is fine."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with _explained(path):
        with contextlib.suppress(FileExistsError):
            system.mkdir(path)
        _sync_folder(path.parent)


def write_file(path: Path, data: bytes) -> None:
    """Put `data` at `path`, replacing what was there, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _explained(path):
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            try:
                _write_all(fd, data)
                system.fsync(fd)
            finally:
                os.close(fd)
            system.replace(temporary, path)
            _sync_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def store(folder: Path, data: bytes, suffix: str) -> str:
    """Content-addressed: put `data` at `folder/<sha256><suffix>` once and return that file name."""
    name = hashlib.sha256(data).hexdigest() + suffix
    target = folder / name
    if not target.exists():
        make_folder(folder)
        write_file(target, data)
    return name


class Appender:
    """An append-only file; `append` returns after the bytes are on the disk.

    A failed append is cut back off the file, so that a later record never follows torn bytes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _explained(path):
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            _sync_folder(path.parent)

    def append(self, data: bytes) -> None:
        """Write and fsync `data` at the end."""
        with _explained(self.path):
            size = os.fstat(self._fd).st_size
            try:
                _write_all(self._fd, data)
                system.fsync(self._fd)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._fd, size)
                raise

    def close(self) -> None:
        """Release the file; twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _write_all(fd: int, data: bytes) -> None:
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
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except ResourceError:
        raise
    except OSError as error:
        raise ResourceError(
            "E601",
            seen=f"{errno.errorcode.get(error.errno or 0, 'error')} writing {path} ({_free(path)} free)",
            expected="a writable place with room",
            fix="free some space or choose another folder with --out, then resume with --resume",
        ) from error


def _free(path: Path) -> str:
    for folder in path.parents:
        with contextlib.suppress(OSError):
            return f"{shutil.disk_usage(folder).free / 2**20:.0f} MiB"
    return "unknown space"

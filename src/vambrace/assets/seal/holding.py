"""One process at a time on a file or folder, by a kernel lock on the thing itself: nothing is left lying beside it.

`vambrace.core.lock` notes in a file of its own who holds it; model files are handed on, so no such file goes with them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import TYPE_CHECKING

from vambrace.assets.seal.subject import shown
from vambrace.core.disk import unreadable, unwritable
from vambrace.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

__all__ = ["alone"]


@contextlib.contextmanager
def alone(path: Path, *, write: bool = False) -> Generator[int]:
    """Inside, nobody else who asks so works on the file or folder at `path`.

    Args:
        path: it has to be there.
        write: open it for writing too.

    Yields:
        A descriptor of it.

    Raises:
        ResourceError: E600, when somebody else does; E601 or E604, when it cannot be opened; E603, when its file system
            has no locks.
    """
    fd = _held(path, write)
    try:
        yield fd
    finally:
        os.close(fd)


def _held(path: Path, write: bool) -> int:
    while True:
        try:
            # Without O_NONBLOCK, the open of a pipe that nobody writes to would never return.
            fd = os.open(path, (os.O_RDWR if write else os.O_RDONLY) | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise (unwritable(path, error) if write else unreadable(shown(str(path)), error)) from error
        try:
            _lock(fd, path)
            # Whoever held it before may have put another file in its place: then this lock is on the old one.
            if os.path.samestat(os.fstat(fd), path.stat()):
                return fd
        except FileNotFoundError as error:
            os.close(fd)
            raise unreadable(shown(str(path)), error) from error
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ResourceError(
            "E600",
            seen=f"{shown(str(path))} is in use by another process",
            expected="one process at a time",
            fix="wait for it to end, and try again",
        ) from None
    except OSError as error:
        raise ResourceError(
            "E603",
            seen=f"{errno.errorcode.get(error.errno or 0, 'an error')} locking {shown(str(path))}",
            expected="a file system that has locks",
            fix="put it on a local disk",
        ) from error

"""One process at a time on a file or folder: a kernel lock, and a note of who holds it.

The lock is `flock` on a file that is never removed, so it ends with its process whatever kills it. The
note says who, for the message to the second one; a note without a lock is stale. Not for folders that several
machines share without lock support: there it refuses instead of hoping.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from vambrace.core import canonical
from vambrace.core.clock import now
from vambrace.core.disk import unwritable
from vambrace.errors import ResourceError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Holder", "Lock"]

_PATIENCE = 0.2  # seconds to wait for the note of a holder that has only just locked


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who works, or worked, on what is locked."""

    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class Lock:
    """Held from the call of `take` until `release`, or until the process ends.

    Attributes:
        stale: who held it before and ended without a word, or None.
    """

    def __init__(self, fd: int, stale: Holder | None) -> None:
        self._fd = fd
        self.stale = stale

    @classmethod
    def take(cls, path: Path, *, shown: Path | None = None) -> Lock:
        """Lock the file at `path`, which is made where there is none.

        Args:
            path: the lock's own file.
            shown: what messages say is in use; None: the folder of `path`.

        Raises:
            ResourceError: E600 when another process holds it, E601 when the file cannot be written, E603 when its file
                system has no locks.
        """
        shown = shown or path.parent
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise unwritable(path, error) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _patiently(fd) if error.errno in {errno.EAGAIN, errno.EACCES} else None
            os.close(fd)
            if error.errno not in {errno.EAGAIN, errno.EACCES}:
                raise _no_locks(shown, error) from error
            raise ResourceError(
                "E600",
                seen=f"{shown} is in use by {holder or 'another process'}",
                expected="one process at a time",
                fix="wait for it to end, or start a new run",
            ) from None
        stale = _read(fd)
        try:
            _note(fd, canonical.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now()}))
        except OSError as error:
            os.close(fd)
            raise unwritable(path, error) from error
        return cls(fd, stale)

    def release(self) -> None:
        """Let others in; twice is fine."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, 0)
            with contextlib.suppress(OSError):
                # Closing is not enough: a process that is just being started may hold a copy for a moment.
                fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = -1


def _note(fd: int, content: bytes) -> None:
    """Only words for people, so it need not be durable: the kernel holds the lock."""
    os.ftruncate(fd, 0)
    os.pwrite(fd, content, 0)


def _patiently(fd: int) -> Holder | None:
    end = time.monotonic() + _PATIENCE
    while (holder := _read(fd)) is None and time.monotonic() < end:
        time.sleep(0.01)
    return holder


def _read(fd: int) -> Holder | None:
    """Whom the note names; None where it names nobody or cannot be read."""
    try:
        data: Any = canonical.loads(os.pread(fd, 4096, 0))
        fields = cast("dict[str, Any]", data)
        return Holder(pid=int(fields["pid"]), host=str(fields["host"])[:100], since=str(fields["since"])[:40])
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError, OverflowError):
        return None


def _no_locks(shown: Path, error: OSError) -> ResourceError:
    return ResourceError(
        "E603",
        seen=f"{errno.errorcode.get(error.errno or 0, 'an error')} locking {shown}",
        expected="a file system that has locks",
        fix="put it on a local disk (a run directory: with --out)",
    )

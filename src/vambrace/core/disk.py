"""What failures of the disk mean for people: which code, what was seen, and what helps."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

from vambrace.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["check_writable", "drop", "error_name", "refuse_special", "spooling", "unreadable", "unwritable"]


def check_writable(path: Path) -> None:
    """Make and remove a file beside `path`, so that long work need not be done to find that it cannot be written.

    Raises:
        ResourceError: E601, where there is no such folder, or it cannot be written, or `path` is a folder itself; E605,
            as `refuse_special`.
    """
    refuse_special(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder", str(path))
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise unwritable(path, error) from error


def refuse_special(path: Path) -> None:
    """Refuse a device, pipe or socket at `path`, or where a link there leads: a file would take its place.

    Raises:
        ResourceError: E605.
    """
    try:
        mode = path.stat().st_mode
        # Through such a link, /dev/stdout is the file that the output goes to; and yet the link would be replaced.
        magic = path.is_symlink() and path.readlink().is_relative_to("/proc")
    except (OSError, ValueError):
        return  # nothing is there, or what is wrong is said by whoever writes
    if magic or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ResourceError(
            "E605",
            seen=f"{path} is a device, pipe or socket",
            expected="a file, which is replaced as a whole, or a new place",
            fix="write to - (standard output) where the command takes it, and redirect that, or name a file",
        )


def unwritable(path: Path, error: OSError, *, named: str = "", otherwise: str = "") -> ResourceError:
    """E601: what `error` means for somebody who wanted `path` written.

    Args:
        path: whose disk it is.
        error: what the system said.
        named: what the message calls it; "": the path.
        otherwise: what helps where neither room nor the number of open files is short; "": the likely thing.
    """
    if error.errno in _FULL:
        fix = "free some space, then run the same command again"
    elif error.errno in _MANY:
        fix = _MORE_FILES
    else:
        fix = otherwise or "check the path and its permissions, or choose another place"
    return ResourceError(
        "E601",
        seen=f"{error_name(error)} writing {named or path} ({_free(path)} free)",
        expected="a writable place with room",
        fix=fix,
    )


def unreadable(name: str, error: OSError) -> ResourceError:
    """E604: what `error` means for somebody who wanted what messages call `name` read."""
    many = error.errno in _MANY
    return ResourceError(
        "E604",
        seen=f"{error_name(error)} reading {name}",
        expected="a readable file or folder",
        fix=_MORE_FILES if many else "check the path, its permissions and the disk",
    )


def drop(file: IO[bytes]) -> None:
    """Close a file of which nothing is wanted any more; that its buffer could not be written is no error then."""
    with contextlib.suppress(OSError):
        file.close()


@contextlib.contextmanager
def spooling(folder: Path | None = None) -> Generator[None]:
    """Inside, a file without a name is made, written or read in `folder`, or in the system's for such; E601 if not."""
    try:
        yield
    except OSError as error:
        if isinstance(error, ResourceError):
            raise
        place = Path(folder or tempfile.tempdir or os.environ.get("TMPDIR") or "/tmp")  # noqa: S108  only to say it
        raise unwritable(place, error) from error


def error_name(error: OSError) -> str:
    """What the system calls it, such as "ENOSPC"."""
    return errno.errorcode.get(error.errno or 0, "an error")


def _free(path: Path) -> str:
    for folder in (path, *path.parents):
        with contextlib.suppress(OSError):
            return f"{shutil.disk_usage(folder).free / 2**20:.0f} MiB"
    return "unknown space"


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_MANY = frozenset({errno.EMFILE, errno.ENFILE})
_MORE_FILES = "allow more open files (`ulimit -n`), then run the same command again"

"""A new header in the place of the old one, such that a crash at any instant leaves one of the two whole.

    with alone(path, write=True) as fd:
        current = settle(fd, path, identities)  # what an earlier crash left is finished first
        replace(fd, path, headers.build(changed, current.opened.keys))

The header first goes whole into a sidecar, `.NAME.header`; only when that is durable is the file touched. A sidecar is
believed when its HMAC verifies under the key of the file that it lies beside: not for its name, nor for its hash.
Format: docs/formats/sealed-v1.md, "Changing the header in place".
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import stat
from typing import TYPE_CHECKING, Final

from vambrace.assets.seal import header as headers
from vambrace.assets.seal.header import FIXED_BYTES, HEADER_BYTES
from vambrace.assets.seal.opening import SIDECAR_BYTES, Opened, open_header, sidecar_path
from vambrace.assets.seal.subject import shown
from vambrace.core import files
from vambrace.core.disk import unreadable
from vambrace.errors import ArtifactRefused

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vambrace.assets.seal.header import Header
    from vambrace.assets.seal.recipients import Identity
    from vambrace.assets.seal.schedule import FileKeys

__all__ = ["Current", "replace", "settle"]

_LEFTOVER: Final = r"\.[0-9]+\.[0-9a-f]{8}\.tmp"


@dataclasses.dataclass(frozen=True, slots=True)
class Current:
    """The header that holds now.

    Attributes:
        opened: the header, and the keys of the file; whoever opened it need not be among the recipients any more.
        finished: whether a change that a crash had left was finished to get there.
        cleared: whether something of such a change lay beside the file, and is gone.
    """

    opened: Opened
    finished: bool
    cleared: bool


def settle(fd: int, path: Path, identities: Sequence[Identity]) -> Current:
    """Finish or forget what an earlier change has left beside the file, and say what its header is then.

    Args:
        fd: of the file, held alone, open for writing.
        path: of the file, with no link in it.
        identities: who opens it.

    Raises:
        ArtifactRefused: as `open_header`, when neither the header of the file nor that beside it opens; E750, when that
            one belongs to another file.
        ResourceError: E601, E604.
    """
    region = os.pread(fd, HEADER_BYTES, 0)
    sidecar = _sidecar(path, region)
    opened = open_header(region, identities, sidecar=sidecar, ignore_expiry=True)
    held = _authentic(region, opened.keys)
    other = _authentic(sidecar, opened.keys) if sidecar else None
    if other and sidecar and (held is None or other.epoch > held.epoch):
        # Its process may have ended before it was durable, so it is written once more before the file is touched.
        replace(fd, path, sidecar)
        return Current(dataclasses.replace(opened, header=other), finished=True, cleared=True)
    if held is None or opened.header != held:
        # Only a sidecar opens, and it is older than the header that the file has: the header decides who may open it.
        return Current(open_header(region, identities, ignore_expiry=True), finished=False, cleared=False)
    if left := os.path.lexists(place := sidecar_path(path)):
        files.remove(place)
    return Current(opened, finished=False, cleared=left)


def replace(fd: int, path: Path, region: bytes) -> None:
    """Put a header over that of the file: sidecar, fsync, overwrite, fsync, remove, fsync.

    Args:
        fd: of the file, held alone, open for writing.
        path: of the file, with no link in it.
        region: the 65,536 bytes of the new header; the first 112 are those of the file.

    Raises:
        ResourceError: E601, when it cannot be written. The file opens with the old header or the new one; the next
            change begins by finishing this one, if it has come as far.
    """
    _sweep(path)
    sidecar = sidecar_path(path)
    draft = files.Draft(sidecar, like=fd)
    try:
        draft.write(region + hashlib.sha256(region).digest())
        draft.commit()
    finally:
        draft.discard()
    files.overwrite(fd, FIXED_BYTES, region[FIXED_BYTES:], path=path)
    files.remove(sidecar)


def _sidecar(path: Path, region: bytes) -> bytes | None:
    """The header of a whole sidecar of this file, not authenticated; None for none and for half of one."""
    place = sidecar_path(path)
    try:
        fd = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        if os.path.islink(place):  # noqa: PTH114  of a name that is too long it says no
            raise _foreign(place, "a link") from error
        raise unreadable(shown(str(place)), error) from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise _foreign(place, "no file")
        data = os.read(fd, SIDECAR_BYTES + 1)
    except OSError as error:
        raise unreadable(shown(str(place)), error) from error
    finally:
        os.close(fd)
    header = data[:HEADER_BYTES]
    if hashlib.sha256(header).digest() != data[HEADER_BYTES:]:
        return None
    if header[:FIXED_BYTES] != region[:FIXED_BYTES]:
        # That file may have been renamed after a crash, and this be the only whole header that it has.
        raise _foreign(place, "the header of another sealed file")
    return header


def _authentic(region: bytes, keys: FileKeys) -> Header | None:
    """What a header says, when a holder of the file key wrote it."""
    with contextlib.suppress(ArtifactRefused):
        found = headers.parse(region)
        headers.verify(region, keys)
        return found
    return None


def _sweep(path: Path) -> None:
    """Remove what processes that were killed while they wrote the sidecar have left; the file is held alone."""
    sidecar = sidecar_path(path)
    leftover = re.compile(rf"\.{re.escape(files.draft_name(sidecar.name))}{_LEFTOVER}")
    with contextlib.suppress(OSError):
        for name in os.listdir(path.parent):
            if leftover.fullmatch(name):
                path.with_name(name).unlink()


def _foreign(place: Path, seen: str) -> ArtifactRefused:
    return ArtifactRefused(
        "E750",
        seen=f"{shown(str(place))}: {seen}",
        expected="nothing, or the header of the file that it lies beside",
        fix="find the file that it belongs to (one that was renamed) and move it there; if there is none, remove it",
    )

"""From a header and what somebody holds to the keys of the file, checked in the one safe order.

Well formed; a candidate for the file key unwrapped; the key commitment, so that no crafted file opens under two keys
(Len, Grubbs, Ristenpart: Partitioning Oracle Attacks, USENIX Security 2021); the HMAC; the private description.
Nothing that a header says is acted on before it is authentic, except for its bounded password hashing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import stat
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from vambrace.assets.seal import header as headers
from vambrace.assets.seal.description import expiry, open_private
from vambrace.assets.seal.header import FIXED_BYTES, HEADER_BYTES
from vambrace.assets.seal.recipients import candidates, refusal
from vambrace.assets.seal.refusals import expired
from vambrace.assets.seal.schedule import FILE_KEY_BYTES, FileKeys
from vambrace.errors import ArtifactRefused

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vambrace.assets.seal.description import Description
    from vambrace.assets.seal.header import Header
    from vambrace.assets.seal.recipients import Identity

__all__ = ["Opened", "SIDECAR_BYTES", "check_expiry", "open_header", "pending", "read_sidecar", "sidecar_path"]

SIDECAR_BYTES: Final = HEADER_BYTES + 32


@dataclasses.dataclass(frozen=True, slots=True)
class Opened:
    """A header that is authentic.

    Attributes:
        header: what it says to everybody.
        keys: of the file.
        description: what it says to those who can open it.
    """

    header: Header
    keys: FileKeys
    description: Description


def open_header(
    region: bytes,
    identities: Sequence[Identity],
    *,
    sidecar: bytes | None = None,
    ignore_expiry: bool = False,
    now: datetime | None = None,
) -> Opened:
    """Open the header of a sealed file.

    Args:
        region: the file's first 65,536 bytes; fewer where it has fewer.
        identities: who opens it; tried in their order.
        sidecar: the header of a whole sidecar (`read_sidecar`), tried when the file's own does not open.
        ignore_expiry: open the file after its `expires`, too.
        now: the time to compare with `expires`; None: the system's.

    Raises:
        ArtifactRefused: E700 to E702 and E706, see `header.parse`; E725 or E726 for its recipients; E727 to E729 or
            E737, see `recipients.refusal`, when nothing opens it; E702 not authentic, E710 expired, E711 authentic and
            not what the format allows.
        MissingExtra, ResourceError: as `recipients.candidates`.
    """
    try:
        opened = _open(region, identities)
    except ArtifactRefused:
        if sidecar is None:
            raise
        try:
            opened = _open(sidecar, identities)
        except ArtifactRefused:
            opened = None
        if opened is None:  # what is wrong with the file itself is the better answer
            raise
    if not ignore_expiry:
        check_expiry(opened, now)
    return opened


def check_expiry(opened: Opened, now: datetime | None = None) -> None:
    """Refuse what is past the earlier `expires` of its descriptions.

    Raises:
        ArtifactRefused: E710.
    """
    date = expiry(opened.header.public, opened.description.metadata)
    if date is not None and (now or datetime.now(UTC)) >= date:
        raise expired(f"a file that expired at {date:%Y-%m-%dT%H:%M:%SZ}")


def sidecar_path(path: Path) -> Path:
    """Where the new header of `path` lies while it is being changed."""
    return path.with_name(f".{path.name}.header")


def pending(path: Path) -> Path | None:
    """The sidecar on which a sealed file hangs where a change of its recipients was cut off, if there is one."""
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: links in a circle
        place = path.resolve()
        fd = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            region = os.read(fd, FIXED_BYTES) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
        finally:
            os.close(fd)
        return sidecar_path(place) if region and read_sidecar(place, region) else None
    return None


def read_sidecar(path: Path, region: bytes) -> bytes | None:
    """The header in the sidecar of `path`, when it is whole and of this file; None otherwise.

    Args:
        path: the sealed file.
        region: its first 112 bytes, or more.
    """
    with contextlib.suppress(OSError):
        fd = os.open(sidecar_path(path), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(fd)
            data = os.read(fd, SIDECAR_BYTES) if stat.S_ISREG(found.st_mode) else b""
        finally:
            os.close(fd)
        header, digest = data[:HEADER_BYTES], data[HEADER_BYTES:]
        whole = found.st_size == len(data) == SIDECAR_BYTES
        if whole and hashlib.sha256(header).digest() == digest and header[:FIXED_BYTES] == region[:FIXED_BYTES]:
            return header
    return None


def _open(region: bytes, identities: Sequence[Identity]) -> Opened:
    header = headers.parse(region)
    fixed = header.fixed
    for candidate in candidates(identities, header.recipients, fixed.binding):
        if len(candidate) != FILE_KEY_BYTES:
            continue
        keys = FileKeys(candidate, fixed.salt, fixed.suite)
        if headers.commits(fixed, keys):
            headers.verify(region, keys)
            return Opened(header, keys, open_private(header.private, keys, fixed.suite, fixed.head))
    raise refusal(identities, header.recipients)

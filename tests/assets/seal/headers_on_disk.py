"""Sealed files of which only the header is real: enough for a change of recipients, and quick to make in any size."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from vambrace.assets.seal import header as headers
from vambrace.assets.seal.description import Description, seal_private
from vambrace.assets.seal.header import FIXED_BYTES, HEADER_BYTES, Fixed, Header
from vambrace.assets.seal.opening import open_header, read_sidecar
from vambrace.assets.seal.recipients import as_identity, as_recipient
from vambrace.assets.seal.schedule import FileKeys, new_file_key, new_salt
from vambrace.assets.seal.suites import Suite
from vambrace.errors import ArtifactRefused

BODY = b"ciphertext" * 20


def region(*recipients: object, epoch: int = 0, keys: FileKeys | None = None, salt: bytes | None = None) -> bytes:
    """The header of a new file, or of one whose keys and salt are given."""
    salt = salt or new_salt()
    keys = keys or FileKeys(new_file_key(), salt, Suite.AES_256_GCM)
    head = Fixed(suite=Suite.AES_256_GCM, chunk_size=65536, salt=salt, commitment=keys.commit, described=bytes(32)).head
    private = seal_private(Description(content="bytes", size=None, metadata={"a": 1}), keys, Suite.AES_256_GCM, head)
    public = {"name": "net"}
    fixed = Fixed(
        suite=Suite.AES_256_GCM,
        chunk_size=65536,
        salt=salt,
        commitment=keys.commit,
        described=headers.described(private, public),
    )
    stanzas = [as_recipient(each).wrap(keys.file_key, fixed.binding) for each in recipients]
    return headers.build(Header(fixed=fixed, epoch=epoch, private=private, public=public, recipients=stanzas), keys)


def put(path: Path, *recipients: object) -> bytes:
    """A file for these recipients; its header."""
    head = region(*recipients)
    path.write_bytes(head + BODY)
    return head


def sidecar(path: Path) -> Path:
    return path.with_name(f".{path.name}.header")


def whole(head: bytes) -> bytes:
    """A sidecar with this header."""
    return head + hashlib.sha256(head).digest()


def torn(old: bytes, new: bytes) -> bytes:
    """A header of which the first half of what was to be overwritten was."""
    cut = FIXED_BYTES + (HEADER_BYTES - FIXED_BYTES) // 2
    assert old[:FIXED_BYTES] == new[:FIXED_BYTES]
    return new[:cut] + old[cut:]


def opens(path: Path, identity: object) -> bool:
    """Whether a reader opens the file, as it is, for this identity; the content has to be untouched."""
    data = path.read_bytes()
    assert data[HEADER_BYTES:] == BODY
    head = data[:HEADER_BYTES]
    try:
        opened = open_header(head, [as_identity(identity)], sidecar=read_sidecar(path, head))
    except ArtifactRefused:
        return False
    assert opened.description.metadata == {"a": 1}
    return True


def names(path: Path) -> list[str]:
    return sorted(os.listdir(path.parent))

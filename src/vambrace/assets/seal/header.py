"""The first 65,536 bytes of a sealed file: read strictly, written whole. Format: docs/formats/sealed-v1.md, "Header".

What `parse` gives is well formed and not yet believed: only `verify`, under keys whose commitment fits, makes it so.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import struct
from typing import TYPE_CHECKING, Any, Final, cast

from vambrace.assets.seal import stanzas
from vambrace.assets.seal.description import canonical_object, fault
from vambrace.assets.seal.refusals import cut_short, damaged_header, not_sealed, unknown_version
from vambrace.assets.seal.suites import TAG_BYTES, Suite
from vambrace.core import canonical
from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vambrace.assets.seal.schedule import FileKeys

__all__ = [
    "CHUNK_SIZES",
    "FIXED_BYTES",
    "Fixed",
    "HEADER_BYTES",
    "Header",
    "MAGIC",
    "build",
    "commits",
    "described",
    "parse",
    "verify",
]

MAGIC: Final = b"\x89VBSEAL\n"
VERSION: Final = 1
HEADER_BYTES: Final = 65_536
FIXED_BYTES: Final = 112
CHUNK_SIZES: Final = tuple(2**power for power in range(16, 25))
"""Bytes of plain content in a chunk: powers of two from 64 KiB to 16 MiB."""

_HEAD: Final = struct.Struct("<8sHBBI32s32s")
_HEAD_BYTES: Final = 80
_TEXT_AT: Final = 116
_MAC_AT: Final = HEADER_BYTES - 32
_MOST_TEXT: Final = _MAC_AT - _TEXT_AT
MOST_RECIPIENTS: Final = 64


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """The first 112 bytes, which never change during the life of a file.

    Attributes:
        suite: the AEAD.
        chunk_size: plain bytes in every chunk but the last; one of `CHUNK_SIZES`.
        salt: 32 random bytes.
        commitment: 32 bytes that fit one file key only.
        described: SHA-256 of the private and public description (`described`).
    """

    suite: Suite
    chunk_size: int
    salt: bytes
    commitment: bytes
    described: bytes

    @property
    def head(self) -> bytes:
        """The first 80 bytes: what the private description is bound to."""
        return _HEAD.pack(MAGIC, VERSION, self.suite, 0, self.chunk_size, self.salt, self.commitment)

    @property
    def binding(self) -> bytes:
        """SHA-256 of the 112 bytes: what recipients, chunks and signatures are bound to."""
        return hashlib.sha256(self.pack()).digest()

    def pack(self) -> bytes:
        """The 112 bytes."""
        return self.head + self.described


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """All that the header says.

    Attributes:
        fixed: the part that never changes.
        epoch: how often the recipients have been changed.
        private: the private description, encrypted.
        public: JSON data that everybody may read.
        recipients: stanzas, 1 to 64, each a JSON object with a `type`.
    """

    fixed: Fixed
    epoch: int
    private: bytes
    public: Mapping[str, Any]
    recipients: Sequence[Mapping[str, Any]]


def described(private: bytes, public: Mapping[str, Any]) -> bytes:
    """What binds both descriptions to the fixed part, 32 bytes."""
    return hashlib.sha256(canonical.dumps({"private": stanzas.encode(private), "public": public})).digest()


def parse(region: bytes | bytearray | memoryview) -> Header:
    """Read a header; nothing in it is authentic until `verify` says so.

    Args:
        region: the first 65,536 bytes of a file; fewer where the file has fewer.

    Raises:
        ArtifactRefused: E700 not a sealed file, E701 of another version or suite, E706 cut short, E702 malformed, E725
            or E726 recipients that are malformed or ask for too much work.
    """
    region = bytes(region)
    if region[: len(MAGIC)] != MAGIC:
        raise not_sealed(f"a file that begins with {region[: len(MAGIC)].hex(' ').upper() or 'nothing'}")
    if len(region) < HEADER_BYTES:
        raise cut_short(f"{len(region)} bytes where the header has {HEADER_BYTES}")
    _, version, suite, zero, chunk_size, salt, commitment = _HEAD.unpack_from(region)
    if version != VERSION:
        raise unknown_version(f"version {version}")
    if suite not in set(Suite):
        raise unknown_version(f"suite {suite}")
    if zero:
        raise damaged_header("byte 11 is not 0", "0")
    if chunk_size not in CHUNK_SIZES:
        raise damaged_header(f"chunks of {chunk_size} bytes", f"a power of two, {CHUNK_SIZES[0]} to {CHUNK_SIZES[-1]}")
    fixed = Fixed(
        suite=Suite(suite),
        chunk_size=chunk_size,
        salt=salt,
        commitment=commitment,
        described=region[_HEAD_BYTES:FIXED_BYTES],
    )
    header = _parse_text(_text(region), fixed)
    if described(header.private, header.public) != fixed.described:
        raise damaged_header(
            "descriptions that are not those of the fixed part", "their SHA-256 in the bytes 80 to 112"
        )
    stanzas.check_bounds(header.recipients)
    return header


def build(header: Header, keys: FileKeys) -> bytes:
    """The 65,536 bytes of `header`, authenticated under `keys`.

    Raises:
        ConfigError: E714, when descriptions and recipients do not fit.
    """
    text = canonical.dumps(
        {
            "epoch": header.epoch,
            "private": stanzas.encode(header.private),
            "public": header.public,
            "recipients": header.recipients,
        }
    )
    if len(text) > _MOST_TEXT:
        raise ConfigError(
            "E714",
            seen=f"descriptions and recipients of {len(text)} bytes",
            expected=f"at most {_MOST_TEXT}",
            fix="shorten the metadata, or seal for fewer recipients",
        )
    start = header.fixed.pack() + len(text).to_bytes(4, "little") + text
    authenticated = start.ljust(_MAC_AT, b"\0")
    region = authenticated + hmac.digest(keys.header, authenticated, "sha256")
    parse(region)  # what cannot be read again is not written
    return region


def commits(fixed: Fixed, keys: FileKeys) -> bool:
    """Whether `keys` are those of the one file key that the header is committed to; in constant time."""
    return hmac.compare_digest(fixed.commitment, keys.commit)


def verify(region: bytes | bytearray | memoryview, keys: FileKeys) -> None:
    """Check the header's HMAC, in constant time.

    Raises:
        ArtifactRefused: E702, when it is not the one of these bytes under `keys`.
    """
    view = memoryview(region)
    if not hmac.compare_digest(hmac.digest(keys.header, view[:_MAC_AT], "sha256"), bytes(view[_MAC_AT:HEADER_BYTES])):
        raise damaged_header("a header whose HMAC does not verify", "the header as a holder of the file key wrote it")


def _text(region: bytes) -> bytes:
    length = int.from_bytes(region[FIXED_BYTES:_TEXT_AT], "little")
    if length > _MOST_TEXT:
        raise damaged_header(f"a text of {length} bytes", f"at most {_MOST_TEXT}")
    end = _TEXT_AT + length
    if region[end:_MAC_AT] != bytes(_MAC_AT - end):
        raise damaged_header("bytes behind the text that are not zero", "zeros")
    return region[_TEXT_AT:end]


def _parse_text(text: bytes, fixed: Fixed) -> Header:
    data = canonical_object(text)
    if data is None or set(data) != {"epoch", "private", "public", "recipients"}:
        raise damaged_header(
            "a text that is not the header's object", "canonical JSON of epoch, private, public and recipients"
        )
    epoch, private, recipients = data["epoch"], stanzas.decode(data["private"]), cast("object", data["recipients"])
    if type(epoch) is not int or epoch < 0:
        raise damaged_header("an epoch that is no count", "a whole number, 0 or more")
    if private is None or len(private) <= TAG_BYTES:
        raise damaged_header("a private description that is too short or not base64", "base64 in its one spelling")
    if found := fault(data["public"]):
        raise damaged_header(f"a public description that cannot be: {found}", "an object of metadata")
    if not isinstance(recipients, list) or not 1 <= len(cast("list[object]", recipients)) <= MOST_RECIPIENTS:
        raise damaged_header("recipients that are no list of 1 to 64", f"1 to {MOST_RECIPIENTS} objects")
    listed = cast("list[object]", recipients)
    if not all(isinstance(each, dict) and isinstance(each.get("type"), str) for each in listed):  # pyright: ignore
        raise damaged_header("a recipient without a type", "objects, each with a type")
    return Header(
        fixed=fixed,
        epoch=epoch,
        private=private,
        public=data["public"],
        recipients=cast("list[dict[str, Any]]", listed),
    )

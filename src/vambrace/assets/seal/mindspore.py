"""Checkpoints and MindIR files that MindSpore encrypted (`enc_key`, `enc_mode`), read only.

Such a file is blocks one after the other, each of at most 64 MiB of plain bytes (512 MiB in the earliest releases); all
but the last are full. Integers have 4 bytes, little-endian:

    magic | tag, 16 bytes, AES-GCM only | bytes that follow | 16 | IV, 16 bytes | bytes of ciphertext | ciphertext

The magic says the mode: 0x7F3A5ED8 AES-GCM (IV of 16 bytes, no associated data), 0x7F3A5ED9 AES-CBC, 0x7F3A5EDA
SM4-CBC, both padded by PKCS #7. The key is used as it is, for every block. Early releases wrote the first magic for
every mode, no tag, and gave GCM the first 12 bytes of the IV only (mindspore/core/utils/crypto.cc of 2021 and of 2023).

What the format lets a reader see, and is refused: a block cut anywhere, a short block before others (the last one
stands elsewhere than at the end), one block twice, blocks of several modes, with tags every changed bit of a block.
**What it cannot show**: full blocks exchanged with one another, left out, or taken from another file of the same key;
in the CBC modes, or without tags, nearly every change. Seal such files anew (`vambrace seal`).
"""

from __future__ import annotations

import dataclasses
import io
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, cast, get_args

import cryptography
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from vambrace.assets.seal.keys import Secret
from vambrace.assets.seal.source import nothing_at
from vambrace.core.disk import unreadable
from vambrace.errors import ArtifactRefused, ConfigError, MissingExtra, ResourceError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Opened", "is_encrypted", "read"]

Mode = Literal["AES-GCM", "AES-CBC", "SM4-CBC"]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)
_MAGIC: Final[dict[int, Mode]] = {0x7F3A5ED8: "AES-GCM", 0x7F3A5ED9: "AES-CBC", 0x7F3A5EDA: "SM4-CBC"}
_FULL: Final = (64 * 2**20, 512 * 2**20)
_INTEGER: Final = struct.Struct("<I")
_HEAD: Final = struct.Struct("<II16sI")  # bytes that follow, size of the IV, IV, bytes of ciphertext
_BEFORE_CIPHERTEXT: Final = 24  # what "bytes that follow" counts beside the ciphertext


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A decrypted file.

    Attributes:
        data: its plain bytes, which the caller may overwrite when done.
        mode: "AES-GCM", "AES-CBC" or "SM4-CBC".
        authenticated: each block has a tag, and it is right: nobody without the key changed a bit within a block.
        warnings: what could not be checked, in words.
    """

    data: bytearray = dataclasses.field(repr=False)
    mode: Mode
    authenticated: bool
    warnings: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    start: int  # of the ciphertext, in the file
    size: int  # of the ciphertext
    iv: bytes
    mode: Mode
    tag: bytes | None


def is_encrypted(head: bytes) -> bool:
    """Whether a file that begins with `head` (4 bytes or more) is one that MindSpore encrypted."""
    return len(head) >= 4 and _INTEGER.unpack_from(head)[0] in _MAGIC


def read(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview,
    key: bytes | bytearray | Secret,
    mode: Mode | None = None,
    *,
    unverified: bool = False,
) -> Opened:
    """Decrypt a file that MindSpore encrypted. Nothing of it is returned unless all of it decrypts.

    Args:
        source: its path, or its bytes.
        key: as it was given to MindSpore: 16, 24 or 32 bytes, 16 for SM4-CBC.
        mode: as it was given to MindSpore; None: what the file says. Files of early releases do not say it.
        unverified: read AES-GCM without tags, as early releases wrote it. Then nothing shows that bytes were changed,
            or that the key is wrong.

    Raises:
        ConfigError: E782, for a key of another size, or a mode that is none.
        ArtifactRefused: E780, for a file that is no such file; E781, one that was cut; E783, one whose blocks were put
            in another order, copied or mixed; E784, one that the key does not open, or that was changed; E785, without
            tags, unless `unverified`; E786, for another `mode` than the file's.
        MissingExtra: E730, where the installed `cryptography` lacks SM4.
        ResourceError: E604, when it cannot be read.
    """
    if mode is not None and mode not in MODES:
        raise ConfigError("E782", seen=f"mode {mode!r}", expected=", ".join(MODES), fix="give the mode of `enc_mode`")
    if not isinstance(key, Secret | bytes | bytearray | memoryview):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError("E782", seen=f"a key that is a {type(key).__name__}", expected="bytes", fix="give its bytes")
    secret = key.raw if isinstance(key, Secret) else bytes(key)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        try:
            with path.open("rb") as file:
                return _read(file, os.fstat(file.fileno()).st_size, secret, mode, unverified)
        except FileNotFoundError as error:
            raise nothing_at(path, "a file that MindSpore encrypted") from error
        except OSError as error:
            if isinstance(error, ResourceError):
                raise
            raise unreadable(str(path), error) from error
    data = bytes(cast("bytes", source))
    return _read(io.BytesIO(data), len(data), secret, mode, unverified)


def _read(file: BinaryIO, size: int, key: bytes, mode: Mode | None, unverified: bool) -> Opened:
    blocks = _blocks(file, size)
    said = blocks[0].mode
    # Tags of zeros were never set; one that was set makes all of them count.
    tagged = any(any(block.tag or b"") for block in blocks)
    early = said == "AES-GCM" and blocks[0].tag is None
    if mode is not None and mode != said and not (early and mode == "AES-CBC"):
        raise ArtifactRefused(
            "E786",
            seen=f"a file in mode {said}, read with mode {mode}",
            expected=f"mode {said}",
            fix="leave the mode out: the file says it",
        )
    mode = mode or said
    if len(key) not in ((16,) if mode == "SM4-CBC" else (16, 24, 32)):
        raise ConfigError(
            "E782",
            seen=f"a key of {len(key)} bytes for {mode}",
            expected="16 bytes" if mode == "SM4-CBC" else "16, 24 or 32 bytes",
            fix="give the bytes of `enc_key`, not their hexadecimal form",
        )
    if mode == "AES-GCM" and not tagged and not unverified:
        raise ArtifactRefused(
            "E785",
            seen="AES-GCM without tags, as early releases of MindSpore wrote it" + (", or AES-CBC" if early else ""),
            expected="a tag in each block",
            fix="if you trust its origin, vambrace.assets.seal.mindspore.read(..., unverified=True)"
            + (', or mode="AES-CBC"' if early else ""),
        )
    _in_order(blocks, mode)
    plain = bytearray(sum(block.size for block in blocks) + 15)
    written = 0
    for number, block in enumerate(blocks, 1):
        file.seek(block.start)
        sealed = file.read(block.size)
        if len(sealed) < block.size:
            raise _cut(number, "the file became shorter while it was read")
        with memoryview(plain) as room:
            written += _open(number, block, sealed, key, mode, room[written:], tagged)
    del plain[written:]
    authenticated = mode == "AES-GCM" and tagged
    return Opened(data=plain, mode=mode, authenticated=authenticated, warnings=_warnings(blocks, mode, authenticated))


def _blocks(file: BinaryIO, size: int) -> list[_Block]:
    """Where the blocks are, from their headers alone; all of the file must be blocks."""
    found: list[_Block] = []
    offset = 0
    while offset < size or not found:
        file.seek(offset)
        head = file.read(4 + 16 + _HEAD.size)
        number = len(found) + 1
        if not is_encrypted(head):
            if found:
                raise _cut(number, f"at byte {offset} there is no block")
            raise ArtifactRefused(
                "E780",
                seen="a file that does not begin as one that MindSpore encrypted",
                expected=f"one of {', '.join(f'0x{magic:X}' for magic in _MAGIC)} as its first four bytes",
                fix="read it as it is: it may not be encrypted",
            )
        mode = _MAGIC[_INTEGER.unpack_from(head)[0]]
        block = _block(head, offset, mode, tagged=mode == "AES-GCM")
        if block is None and mode == "AES-GCM":
            block = _block(head, offset, mode, tagged=False)
        if block is None:
            raise _cut(number, f"its header at byte {offset} contradicts itself or ends")
        if found and (block.mode, block.tag is None) != (found[0].mode, found[0].tag is None):
            raise _mixed(f"block {number} is in another mode than block 1", "blocks of one file")
        offset = block.start + block.size
        if offset > size:
            raise _cut(number, f"{offset - size} of its {block.size} bytes are missing")
        found.append(block)
    return found


def _block(head: bytes, offset: int, mode: Mode, *, tagged: bool) -> _Block | None:
    at = 20 if tagged else 4
    if len(head) < at + _HEAD.size:
        return None
    follow, iv_size, iv, size = _HEAD.unpack_from(head, at)
    if iv_size != 16 or size == 0 or follow != _BEFORE_CIPHERTEXT + size or size > _FULL[-1] + 16:
        return None
    return _Block(start=offset + at + _HEAD.size, size=size, iv=iv, mode=mode, tag=head[4:20] if tagged else None)


def _in_order(blocks: Sequence[_Block], mode: Mode) -> None:
    """Refuse what the sizes and IVs of the blocks show: MindSpore fills every block but the last, and draws each IV."""
    seen: dict[bytes, int] = {}
    for number, block in enumerate(blocks, 1):
        if block.iv in seen:
            raise _mixed(f"blocks {seen[block.iv]} and {number} are the same", "blocks that each stand once")
        seen[block.iv] = number
        if mode != "AES-GCM" and block.size % 16:
            raise _cut(number, f"{block.size} bytes of ciphertext are no whole number of cipher blocks")
    first, last = blocks[0].size, len(blocks)
    most = max(block.size for block in blocks)
    for number, block in enumerate(blocks, 1):
        if number < last and block.size < most:
            raise _mixed(
                f"block {number} of {last} is shorter than others, as only the last one is",
                f"blocks of {first} bytes before the last",
            )


def _cipher(block: _Block, key: bytes, mode: Mode) -> Any:  # noqa: ANN401  a context of the library, of one of two types
    if mode == "AES-GCM":
        # Without a tag field the release was one that left the size of the IV at OpenSSL's 12 bytes.
        return Cipher(algorithms.AES(key), modes.GCM(block.iv if block.tag is not None else block.iv[:12])).decryptor()
    algorithm = algorithms.SM4(key) if mode == "SM4-CBC" else algorithms.AES(key)
    try:
        return Cipher(algorithm, modes.CBC(block.iv)).decryptor()
    except UnsupportedAlgorithm as error:
        raise MissingExtra(
            "E730",
            seen=f"cryptography {cryptography.__version__}, which lacks {mode} here",
            expected="an OpenSSL that has it",
            fix="pip install --upgrade cryptography",
        ) from error


def _open(number: int, block: _Block, sealed: bytes, key: bytes, mode: Mode, out: memoryview, tagged: bool) -> int:
    """Decrypt one block to the beginning of `out`; how many bytes it has. The caller gets them if all blocks open."""
    cipher = _cipher(block, key, mode)
    size: int = cipher.update_into(sealed, out)
    try:
        if tagged:
            cipher.finalize_with_tag(block.tag)
        elif mode != "AES-GCM":
            # The padding is all within the last cipher block.
            tail = PKCS7(128).unpadder()
            size += len(tail.update(bytes(out[size - 16 : size])) + tail.finalize()) - 16
    except (InvalidTag, ValueError) as error:
        before = ", though those before it do: it was changed" if number > 1 else ""
        raise ArtifactRefused(
            "E784",
            seen=f"block {number} does not open with this key{before}",
            expected="the key and the bytes that were written",
            fix="get the file again from where it came"
            if before
            else "check the key; if it is right, the file was changed",
        ) from error
    return size


def _warnings(blocks: Sequence[_Block], mode: Mode, authenticated: bool) -> tuple[str, ...]:
    found: list[str] = []
    if not authenticated:
        found.append(f"{mode} without tags: bytes can have been changed unnoticed, and a wrong key can go unnoticed")
    padding = 0 if mode == "AES-GCM" else 16
    full = {size + padding for size in _FULL}
    if blocks[-1].size in full:
        found.append(f"the last of {len(blocks)} blocks is full: the file may have been cut behind it")
    if len(blocks) > 1 and blocks[0].size not in full:
        found.append(f"blocks of {blocks[0].size} bytes, where MindSpore writes 64 MiB: another program made this file")
    found.append(
        "the format counts no blocks: full ones can have been left out, exchanged or taken from elsewhere unnoticed"
    )
    return tuple(found)


def _cut(number: int, why: str) -> ArtifactRefused:
    return ArtifactRefused(
        "E781",
        seen=f"block {number} is not whole: {why}",
        expected="whole blocks up to the end of the file",
        fix="get the file again: it was cut or damaged",
    )


def _mixed(seen: str, expected: str) -> ArtifactRefused:
    return ArtifactRefused(
        "E783",
        seen=seen,
        expected=expected,
        fix="get the file again: its blocks were put in another order, copied, dropped or mixed",
    )

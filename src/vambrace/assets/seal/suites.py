"""The four AEADs of sealed files, with one interface. Format: docs/formats/sealed-v1.md, "Keys".

    >>> cipher = aead(Suite.AES_256_GCM, bytes(32))
    >>> sealed, plain = bytearray(3 + TAG_BYTES), bytearray(3)
    >>> cipher.seal_into(bytes(12), b"abc", b"", sealed)
    >>> cipher.open_into(bytes(12), sealed, b"", plain)
    >>> bytes(plain)
    b'abc'

AES-GCM (NIST SP 800-38D), ChaCha20-Poly1305 (RFC 8439), AES-GCM-SIV (RFC 8452) and SM4-GCM (GB/T 32907, RFC 8998) are
OpenSSL's, through `cryptography`. Calls on large buffers let other threads run, and one object serves many threads.
"""

from __future__ import annotations

from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING, Protocol

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV, ChaCha20Poly1305

from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cryptography.hazmat.primitives.ciphers import BlockCipherAlgorithm
    from cryptography.utils import Buffer

__all__ = ["Aead", "KEY_BYTES", "NONCE_BYTES", "Suite", "TAG_BYTES", "aead", "available"]

NONCE_BYTES = 12
TAG_BYTES = 16
_FEW = 16
"""Parts that are encrypted one by one: of more, each call is too short for another thread to run beside it."""


class Suite(IntEnum):
    """The number that stands in the header."""

    AES_256_GCM = 1
    CHACHA20_POLY1305 = 2
    AES_256_GCM_SIV = 3
    SM4_GCM = 4


KEY_BYTES = {Suite.AES_256_GCM: 32, Suite.CHACHA20_POLY1305: 32, Suite.AES_256_GCM_SIV: 32, Suite.SM4_GCM: 16}
"""Bytes of a suite's key."""


class Aead(Protocol):
    """One key in use. Nonces have 12 bytes; `sealed` is ciphertext and tag, 16 bytes longer than `plain`."""

    def seal_into(self, nonce: bytes, plain: Buffer, aad: bytes, out: Buffer) -> None:
        """Write the ciphertext and tag of `plain` into `out`, which has exactly their size."""
        ...

    def seal_parts(self, nonce: bytes, parts: Sequence[Buffer], aad: bytes, out: memoryview) -> None:
        """The same for plain bytes that lie in several places; copied first where they are many, or the cipher asks."""
        ...

    def open_into(self, nonce: bytes, sealed: Buffer, aad: bytes, out: Buffer) -> None:
        """Write the plain bytes of `sealed` into `out`, which has exactly their size.

        Raises:
            InvalidTag: `cryptography.exceptions`, when the tag does not verify; `out` holds zeros then.
        """
        ...


def aead(suite: Suite, key: bytes) -> Aead:
    """The cipher of `suite` under `key`, which has `KEY_BYTES[suite]` bytes.

    Raises:
        ConfigError: E713, when the OpenSSL in use has no such cipher.
    """
    if len(key) != KEY_BYTES[suite]:
        raise ValueError(f"a key of {len(key)} bytes for {suite.name}")
    try:
        return _CLASSES[suite](key)
    except UnsupportedAlgorithm as error:
        raise ConfigError(
            "E713",
            seen=f"suite {suite.name}, which this OpenSSL does not have",
            expected=f"one of {', '.join(each.name for each in Suite if available(each))}",
            fix="choose another suite, or install a newer `cryptography`",
        ) from error


@cache
def available(suite: Suite) -> bool:
    """Whether the OpenSSL in use has the cipher of `suite`."""
    try:
        cipher = _CLASSES[suite](bytes(KEY_BYTES[suite]))
        cipher.seal_into(bytes(NONCE_BYTES), b"", b"", bytearray(TAG_BYTES))
    except UnsupportedAlgorithm:
        return False
    return True


class _OneShot:
    __slots__ = ("_cipher",)

    def __init__(self, cipher: AESGCM | AESGCMSIV | ChaCha20Poly1305) -> None:
        self._cipher = cipher

    def seal_into(self, nonce: bytes, plain: Buffer, aad: bytes, out: Buffer) -> None:
        self._cipher.encrypt_into(nonce, plain, aad, out)

    def seal_parts(self, nonce: bytes, parts: Sequence[Buffer], aad: bytes, out: memoryview) -> None:
        self.seal_into(nonce, b"".join(parts), aad, out)

    def open_into(self, nonce: bytes, sealed: Buffer, aad: bytes, out: Buffer) -> None:
        try:
            self._cipher.decrypt_into(nonce, sealed, aad, out)
        except InvalidTag:
            _wipe(out)  # OpenSSL has decrypted into it before it knew
            raise


class _Aes(_OneShot):
    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        super().__init__(AESGCM(key))
        self._key = algorithms.AES(key)

    def seal_parts(self, nonce: bytes, parts: Sequence[Buffer], aad: bytes, out: memoryview) -> None:
        if len(parts) > _FEW:
            super().seal_parts(nonce, parts, aad, out)
        else:
            _seal_gcm(self._key, nonce, parts, aad, out)


class _Sm4:
    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = algorithms.SM4(key)
        Cipher(self._key, modes.GCM(bytes(NONCE_BYTES))).encryptor()

    def seal_into(self, nonce: bytes, plain: Buffer, aad: bytes, out: Buffer) -> None:
        _seal_gcm(self._key, nonce, [plain], aad, memoryview(out))

    def seal_parts(self, nonce: bytes, parts: Sequence[Buffer], aad: bytes, out: memoryview) -> None:
        _seal_gcm(self._key, nonce, parts, aad, out)

    def open_into(self, nonce: bytes, sealed: Buffer, aad: bytes, out: Buffer) -> None:
        view = memoryview(sealed)
        decryptor = Cipher(self._key, modes.GCM(nonce, bytes(view[-TAG_BYTES:]))).decryptor()
        decryptor.authenticate_additional_data(aad)
        try:
            decryptor.update_into(view[:-TAG_BYTES], out)
            decryptor.finalize()
        except InvalidTag:
            _wipe(out)
            raise


_CLASSES: dict[Suite, Callable[[bytes], Aead]] = {
    Suite.AES_256_GCM: _Aes,
    Suite.CHACHA20_POLY1305: lambda key: _OneShot(ChaCha20Poly1305(key)),
    Suite.AES_256_GCM_SIV: lambda key: _OneShot(AESGCMSIV(key)),
    Suite.SM4_GCM: _Sm4,
}


def _seal_gcm(key: BlockCipherAlgorithm, nonce: bytes, parts: Sequence[Buffer], aad: bytes, out: memoryview) -> None:
    encryptor = Cipher(key, modes.GCM(nonce)).encryptor()
    encryptor.authenticate_additional_data(aad)
    end = 0
    for part in parts:
        end += encryptor.update_into(part, out[end:-TAG_BYTES])
    encryptor.finalize()
    out[-TAG_BYTES:] = encryptor.tag


def _wipe(out: Buffer) -> None:
    view = memoryview(out)
    view[:] = bytes(len(view))

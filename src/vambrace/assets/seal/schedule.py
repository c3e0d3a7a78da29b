"""The keys of one sealed file, all from its file key by HKDF-SHA256 (RFC 5869). See docs/formats/sealed-v1.md, "Keys".

>>> keys = FileKeys(bytes(32), bytes(32), Suite.AES_256_GCM)
>>> len(keys.data), len(keys.nonce), keys
(32, 7, FileKeys(AES_256_GCM))
"""

from __future__ import annotations

import secrets
from functools import cached_property

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from vambrace.assets.seal.suites import KEY_BYTES, Suite

__all__ = ["FILE_KEY_BYTES", "FileKeys", "PREFIX", "SALT_BYTES", "new_file_key", "new_salt"]

FILE_KEY_BYTES = 32
SALT_BYTES = 32
PREFIX = b"vambrace-sealed/1 "
"""Before every label, type of recipient and purpose of version 1."""


def new_file_key() -> bytes:
    """32 bytes of the operating system's randomness."""
    return secrets.token_bytes(FILE_KEY_BYTES)


def new_salt() -> bytes:
    """32 bytes of the operating system's randomness."""
    return secrets.token_bytes(SALT_BYTES)


class FileKeys:
    """What follows from a file key, computed when asked for. Prints nothing secret and does not travel by pickle.

    Args:
        file_key: 32 random bytes.
        salt: the 32 bytes in the header.
        suite: whose AEAD encrypts.

    Attributes:
        file_key: as given.
        commit: 32 bytes that stand in the header and fit no other file key.
        header: key of the header's HMAC-SHA256.
        private: key of the AEAD of the private description.
        data: key of the AEAD of the chunks.
        nonce: the first 7 bytes of the chunks' nonces.
        trailer: key of the trailer's HMAC-SHA256.
    """

    def __init__(self, file_key: bytes, salt: bytes, suite: Suite) -> None:
        if len(file_key) != FILE_KEY_BYTES or len(salt) != SALT_BYTES:
            raise ValueError("a file key and a salt have 32 bytes each")
        self.file_key = bytes(file_key)
        self._salt = bytes(salt)
        self._suite = suite

    def __repr__(self) -> str:
        return f"FileKeys({self._suite.name})"

    def __reduce__(self) -> str:
        raise TypeError("the keys of a file are not to be stored")

    @cached_property
    def commit(self) -> bytes:
        return self._expand(b"commit", 32)

    @cached_property
    def header(self) -> bytes:
        return self._expand(b"header", 32)

    @cached_property
    def private(self) -> bytes:
        return self._expand(b"private", KEY_BYTES[self._suite])

    @cached_property
    def data(self) -> bytes:
        return self._expand(b"data", KEY_BYTES[self._suite])

    @cached_property
    def nonce(self) -> bytes:
        return self._expand(b"nonce", 7)

    @cached_property
    def trailer(self) -> bytes:
        return self._expand(b"trailer", 32)

    def _expand(self, label: bytes, length: int) -> bytes:
        info = PREFIX + label + bytes([self._suite])
        return HKDF(algorithm=SHA256(), length=length, salt=self._salt, info=info).derive(self.file_key)

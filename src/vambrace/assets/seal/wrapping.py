"""A file key under another key: the recipient `Key`, and the wrapping that passphrases share with it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from vambrace.assets.seal import keys
from vambrace.assets.seal.stanzas import decode, encode, label, of_kind
from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vambrace.assets.seal.stanzas import Stanza

__all__ = ["Key", "open_key", "seal_key"]

# The wrapping key is derived from a fresh salt and wraps one file key, so its nonce is never used twice.
_NONCE = bytes(12)


def seal_key(wrapping: bytes, file_key: bytes, kind: str, binding: bytes) -> str:
    """`file_key` under AES-256-GCM, in base64.

    Args:
        wrapping: 32 bytes that wrap nothing else.
        file_key: 32 bytes.
        kind: of the recipient.
        binding: of the file, 32 bytes.
    """
    return encode(AESGCM(wrapping).encrypt(_NONCE, file_key, label(kind, binding)))


def open_key(wrapping: bytes, wrapped: str, kind: str, binding: bytes) -> bytes | None:
    """The file key, 32 bytes; None where it was wrapped under another key, for another file or kind, or changed."""
    try:
        return AESGCM(wrapping).decrypt(_NONCE, decode(wrapped) or b"", label(kind, binding))
    except InvalidTag:
        return None


class Key:
    """A recipient, and the identity that opens: a secret key of 32 bytes, shared by those who seal and those who open.

    Args:
        value: 32 bytes, or a key of kind `aes256`.
        anonymous: leave the hint out by which readers of the header could tell that two files have this recipient.

    Raises:
        ConfigError: E723, for a key of another kind; E724, for another number of bytes.
    """

    kinds = ("key",)

    def __init__(self, value: bytes | bytearray | memoryview | keys.Secret, *, anonymous: bool = False) -> None:
        key = value if isinstance(value, keys.Secret) else keys.Secret("aes256", value)
        if key.kind != "aes256":
            raise ConfigError(
                "E723",
                seen=f"a secret key of kind {key.kind} where one of kind aes256 is needed",
                expected="a key that both seals and opens",
                fix="seal with its public part (PublicKey), open with PrivateKey",
            )
        self.key = key
        self.anonymous = anonymous

    def __repr__(self) -> str:
        return "<a secret key>"

    @property
    def hint(self) -> str:
        """What its stanza says as `id`."""
        return self.key.id

    def wrap(self, file_key: bytes, binding: bytes) -> dict[str, object]:
        """The stanza for this key; see `recipients.Recipient`."""
        salt = os.urandom(32)
        wrapped = seal_key(self._wrapping(salt), file_key, "key", binding)
        hint = {} if self.anonymous else {"id": self.key.id}
        return {"type": "key", "salt": encode(salt), "wrapped": wrapped, **hint}

    def unwrap(self, stanzas: Sequence[Stanza], binding: bytes) -> Iterator[bytes]:
        """The file keys that this key unwraps; see `recipients.Identity`."""
        for stanza in of_kind(stanzas, *self.kinds, hint=self.hint):
            file_key = open_key(self._wrapping(decode(stanza["salt"]) or b""), stanza["wrapped"], "key", binding)
            if file_key is not None:
                yield file_key

    def _wrapping(self, salt: bytes) -> bytes:
        return HKDF(hashes.SHA256(), 32, salt, b"vambrace-sealed/1 key").derive(self.key.raw)

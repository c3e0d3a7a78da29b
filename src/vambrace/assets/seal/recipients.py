"""Who may open a sealed file: the recipients it is sealed for, and the identities that open it.

    >>> binding, file_key = bytes(32), bytes(range(32))
    >>> stanza = as_recipient(b"k" * 32).wrap(file_key, binding)
    >>> next(candidates([as_identity(b"k" * 32)], [stanza], binding)) == file_key
    True

`Key`, `Passphrase` and `Kms` are both; `PublicKey` seals, and `PrivateKey` opens.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from vambrace.assets.seal import keys
from vambrace.assets.seal.hpke import KINDS, PrivateKey, PublicKey
from vambrace.assets.seal.stanzas import check_bounds
from vambrace.assets.seal.wrapping import Key
from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from vambrace.assets.seal.stanzas import Stanza

__all__ = [
    "Identity",
    "Key",
    "PrivateKey",
    "PublicKey",
    "Recipient",
    "as_identity",
    "as_recipient",
    "candidates",
    "check_bounds",
]


@runtime_checkable
class Recipient(Protocol):
    """Somebody a file is sealed for."""

    def wrap(self, file_key: bytes, binding: bytes) -> dict[str, object]:
        """The stanza of this recipient, as it goes into the header.

        Args:
            file_key: 32 bytes, secret.
            binding: the file's, 32 bytes.
        """
        ...


@runtime_checkable
class Identity(Protocol):
    """Somebody who opens a file."""

    def unwrap(self, stanzas: Sequence[Stanza], binding: bytes) -> Iterator[bytes]:
        """The file keys, 32 bytes each, that this identity finds in stanzas of its own kind, one after the other.

        Whether one is the file's own only the key commitment says: a forged header can wrap any.

        Args:
            stanzas: all recipients of the header.
            binding: the file's, 32 bytes.

        Raises:
            ArtifactRefused: E725 or E726, for a malformed stanza of whatever recipient, or work beyond bounds.
        """
        ...


def as_recipient(value: object) -> Recipient:
    """The recipient that `value` stands for.

    Args:
        value: a recipient; 32 bytes of a raw key; a key of `vambrace.assets.seal.keys`; a public key's line of text;
            the path of a key file.

    Raises:
        ConfigError: E723, for a key that seals nothing; E724, for anything else.
        ArtifactRefused: E720 or E721, for a file that holds no key, or a secret one that others can read.
    """
    if isinstance(value, Recipient):
        return value
    key = _as_key(value)
    if isinstance(key, keys.Secret) and key.kind == "aes256":
        return Key(key)
    if key.kind in KINDS:
        return PublicKey(key)
    raise _no_part_in("sealing", key)


def as_identity(value: object) -> Identity:
    """The identity that `value` stands for.

    Args:
        value: an identity; 32 bytes of a raw key; a secret key of `vambrace.assets.seal.keys`; the path of its file.

    Raises:
        ConfigError: E723, for a key that opens nothing; E724, for anything else.
        ArtifactRefused: E720 or E721, for a file that holds no key, or a secret one that others can read.
    """
    if isinstance(value, Identity):
        return value
    key = _as_key(value)
    if isinstance(key, keys.Secret) and key.kind == "aes256":
        return Key(key)
    if isinstance(key, keys.Secret) and key.kind in KINDS:
        return PrivateKey(key)
    raise _no_part_in("opening", key)


def candidates(identities: Iterable[Identity], stanzas: Sequence[Stanza], binding: bytes) -> Iterator[bytes]:
    """What the identities unwrap, one after the other in their order; see `Identity.unwrap`."""
    check_bounds(stanzas)
    for identity in identities:
        yield from identity.unwrap(stanzas, binding)


def _as_key(value: object) -> keys.Secret | keys.Public:
    if isinstance(value, keys.Secret | keys.Public):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return keys.Secret("aes256", bytes(cast("bytes | bytearray", value)))
    if isinstance(value, str) and value.startswith("vambrace-public-key/"):
        return keys.parse(value)
    if isinstance(value, str | os.PathLike):
        try:
            return keys.read(cast("str | os.PathLike[str]", value))
        except FileNotFoundError as error:
            # A text may be a passphrase given in the wrong place: it is not repeated.
            raise _unusable("a text that is no path of a key file" if isinstance(value, str) else str(error)) from None
    raise _unusable(f"a {type(value).__name__}")


def _unusable(seen: str) -> ConfigError:
    return ConfigError(
        "E724",
        seen=f"{seen}, where a recipient or identity is needed",
        expected="32 bytes, a key, the path of a key file, or Passphrase, PublicKey, PrivateKey or Kms",
        fix="give a passphrase as Passphrase(...); check a path",
    )


def _no_part_in(work: str, key: keys.Secret | keys.Public) -> ConfigError:
    return ConfigError(
        "E723",
        seen=f"{key!r}, which has no part in {work}",
        expected="a key of kind aes256, x25519 or mlkem768-x25519" + (", secret" if work == "opening" else ""),
        fix="keys of kind ed25519 sign and verify"
        if key.kind == "ed25519"
        else "give the secret key that belongs to it",
    )

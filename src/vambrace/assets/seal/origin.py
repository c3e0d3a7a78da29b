r"""Who made it: Ed25519 signatures (RFC 8032) and the words that signers put their names to.

    >>> from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    >>> key = Ed25519PrivateKey.generate()
    >>> holds(public_bytes(key), sign(key, b"domain/1\n", b"text"), b"domain/1\n", b"text")
    True

What is signed begins with a domain of its own, so that no signature made for one purpose serves another.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from vambrace.assets.seal import keys
from vambrace.errors import ConfigError

__all__ = [
    "accepted_keys",
    "allowed",
    "decoded",
    "described",
    "encoded",
    "holds",
    "is_date",
    "is_words",
    "public_bytes",
    "sign",
    "signing_key",
]

Signer = Ed25519PublicKey | keys.Public | keys.Secret | bytes | str | os.PathLike[str]

LONGEST: Final = 200  # characters of a name or role

# Control characters, line separators, and those that reorder what is shown: words reach terminals and reports.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_PRIME: Final = 2**255 - 19
# y of the points whose order divides 8 (the four of order 8 share two): under such a key, signatures fit many messages.
_ORDER_8: Final = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_SMALL: Final = frozenset({0, 1, _PRIME - 1, _ORDER_8, _PRIME - _ORDER_8})


def sign(key: Ed25519PrivateKey, domain: bytes, message: bytes) -> bytes:
    """The signature over `domain` and `message`, 64 bytes; the same for the same key and bytes."""
    return key.sign(domain + message)


def holds(signer: bytes, signature: bytes, domain: bytes, message: bytes) -> bool:
    """Whether `signature` is the public key `signer`'s over `domain` and `message`; False for a key that is none."""
    if not allowed(signer):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(signer).verify(signature, domain + message)
    except (InvalidSignature, ValueError):
        return False
    return True


def allowed(signer: bytes) -> bool:
    """Whether 32 bytes may be a signer's public key: in their one spelling, and not of small order.

    RFC 8032 lets both pass. A key of small order has signatures that fit many messages, so it would vouch for nothing.
    """
    y = int.from_bytes(signer, "little") & (2**255 - 1)
    return len(signer) == 32 and y < _PRIME and y not in _SMALL


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    """The public key of `key`, 32 bytes."""
    return key.public_key().public_bytes_raw()


def signing_key(value: Ed25519PrivateKey | keys.Secret | str | os.PathLike[str]) -> Ed25519PrivateKey:
    """The key to sign with that `value` is, or whose key file it names.

    Raises:
        ConfigError: E748, for a key that does not sign, or a file that is not there.
        ArtifactRefused: E720 or E721, for a file that holds no key, or one that others can read.
    """
    if isinstance(value, Ed25519PrivateKey):
        return value
    wanted = "a secret key of kind ed25519"
    key = value if isinstance(value, keys.Secret) else _key_file(value, wanted)
    if not isinstance(key, keys.Secret) or key.kind != "ed25519":
        raise _useless(f"{key!r}", wanted)
    return Ed25519PrivateKey.from_private_bytes(key.raw)


def accepted_keys(value: Signer | Iterable[Signer] | None) -> frozenset[bytes]:
    """The public keys, 32 bytes each, of the signers that a caller accepts.

    Args:
        value: one signer or several; None: none. Each a public key, its 32 bytes, its line of text, or a key file.

    Raises:
        ConfigError: E748, for a key that verifies nothing, a file that is not there, or several that are none.
        ArtifactRefused: E720 or E721, for a file that holds no key, or a secret one that others can read.
    """
    if value is None:
        return frozenset()
    if isinstance(value, Ed25519PublicKey | keys.Public | keys.Secret | bytes | str | os.PathLike):
        value = [value]
    found = frozenset(_public(each) for each in value)
    if not found:
        raise _useless("an empty list of signers", "at least one, or None to accept everybody")
    return found


def described(name: str, role: str, date: str) -> None:
    """Refuse words that a signature cannot carry.

    Raises:
        ConfigError: E746, for a name or role of more than 200 characters or with control characters, or for a date
            that is not of the form `YYYY-MM-DDTHH:MM:SSZ`.
    """
    for what, value in (("name", name), ("role", role)):
        if not is_words(value):
            raise _unfit(f"a {what} of {len(value)} characters, or with control characters in it", "text", what)
    if not is_date(date):
        raise _unfit(f"the date {date[:40]!r}", "UTC as YYYY-MM-DDTHH:MM:SSZ", "date")


def is_words(value: object) -> bool:
    """Whether a value is a name or role that a signature may carry: at most 200 characters, none of them unfit."""
    return isinstance(value, str) and len(value) <= LONGEST and not _UNFIT.search(value)


def is_date(value: object) -> bool:
    """Whether a value is a date as signatures carry it: `YYYY-MM-DDTHH:MM:SSZ`, a day and time that exist."""
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        return False
    try:
        datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return False
    return True


def encoded(data: bytes) -> str:
    """Base64 with padding (RFC 4648, section 4)."""
    return base64.b64encode(data).decode()


def decoded(text: object, size: int) -> bytes | None:
    """The `size` bytes that `text` is the base64 of, or None: for other sizes and for other spellings too."""
    if not isinstance(text, str):
        return None
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return data if len(data) == size and encoded(data) == text else None


def _public(value: Signer) -> bytes:
    wanted = "an Ed25519 public key: 32 bytes, vambrace-public-key/1 ed25519 ..., or the path of its file"
    if isinstance(value, Ed25519PublicKey):
        value = value.public_bytes_raw()
    if not isinstance(value, bytes):
        if isinstance(value, str) and value.startswith("vambrace-public-key/"):
            value = keys.parse(value)
        if not isinstance(value, keys.Public | keys.Secret):
            value = _key_file(value, wanted)
        if value.kind != "ed25519":
            raise _useless(f"{value!r}", wanted)
        value = value.raw if isinstance(value, keys.Public) else value.public().raw
    if not allowed(value):
        raise _useless(f"{len(value)} bytes that are no signer's public key", wanted)
    return value


def _key_file(path: str | os.PathLike[str], wanted: str) -> keys.Secret | keys.Public:
    try:
        return keys.read(path)
    except FileNotFoundError:
        raise _useless("a path where no key file is" if os.fspath(path) else keys.EMPTY, wanted) from None


def _useless(seen: str, wanted: str) -> ConfigError:
    return ConfigError("E748", seen=seen, expected=wanted, fix="give the key of a signer: kind ed25519")


def _unfit(seen: str, expected: str, what: str) -> ConfigError:
    return ConfigError(
        "E746",
        seen=seen,
        expected=f"{expected}, at most {LONGEST} characters and no control characters" if what != "date" else expected,
        fix=f"correct the signer's {what}",
    )

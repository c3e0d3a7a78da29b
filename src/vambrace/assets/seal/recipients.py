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
from vambrace.assets.seal.kms import Kms
from vambrace.assets.seal.passphrase import Argon2id, Passphrase, Scrypt
from vambrace.assets.seal.stanzas import KNOWN, PASSPHRASES, check_bounds
from vambrace.assets.seal.wrapping import Key
from vambrace.core import canonical
from vambrace.errors import ArtifactRefused, ConfigError, MissingExtra, ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from vambrace.assets.seal.stanzas import Stanza

__all__ = [
    "Argon2id",
    "Identity",
    "Key",
    "Kms",
    "Passphrase",
    "PrivateKey",
    "PublicKey",
    "Recipient",
    "Scrypt",
    "as_identity",
    "as_recipient",
    "candidates",
    "check_bounds",
    "further",
    "identities_of",
    "recipients_of",
    "refusal",
    "several",
]


@runtime_checkable
class Recipient(Protocol):
    """Somebody a file is sealed for.

    Attributes:
        kinds: the types of the stanzas that it makes.
    """

    @property
    def kinds(self) -> tuple[str, ...]: ...

    def wrap(self, file_key: bytes, binding: bytes) -> dict[str, object]:
        """The stanza of this recipient, as it goes into the header.

        Args:
            file_key: 32 bytes, secret.
            binding: the file's, 32 bytes.
        """
        ...


@runtime_checkable
class Identity(Protocol):
    """Somebody who opens a file.

    Attributes:
        kinds: the types of stanzas that it tries.
        hint: what its own stanza says as `id`, where it says it; "" for none.
    """

    @property
    def kinds(self) -> tuple[str, ...]: ...

    @property
    def hint(self) -> str: ...

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


def identities_of(value: object) -> list[Identity]:
    """The identities that `value` is, or holds: whatever `as_identity` takes, or a list of such."""
    return [as_identity(each) for each in several(value)]


def recipients_of(value: object) -> list[Recipient]:
    """The recipients that `value` is, or holds: whatever `as_recipient` takes, or a list of such."""
    return [as_recipient(each) for each in several(value)]


def further(stanzas: Iterable[Stanza], there: Iterable[Stanza] = ()) -> list[Stanza]:
    """Those of recipients who are not there already, as far as a header tells who somebody is.

    Of two of one, the other would stay when one is removed by its number.
    """
    known = {_who(stanza) for stanza in there}
    found: list[Stanza] = []
    for stanza in stanzas:
        who = _who(stanza)
        if who is None or who not in known:
            found.append(stanza)
            known.add(who)
    return found


def _who(stanza: Stanza) -> tuple[str, ...] | None:
    """What stands for a recipient in a stanza; None where nothing does."""
    if "id" in stanza:
        return ("id", str(stanza["id"]))
    if stanza.get("type") == "kms":
        return ("kms", str(stanza["provider"]), str(stanza["key"]), canonical.dumps(stanza["context"]).decode())
    return None


def several(value: object) -> list[object]:
    """The items of a list, tuple or set; anything else is one item, a key in bytes or a path too."""
    return list(cast("Iterable[object]", value)) if isinstance(value, list | tuple | set | frozenset) else [value]


def candidates(identities: Sequence[Identity], stanzas: Sequence[Stanza], binding: bytes) -> Iterator[bytes]:
    """What the identities unwrap, in their order, passphrases last; see `Identity.unwrap`.

    Raises:
        ArtifactRefused: E725 or E726, for a malformed stanza, or work beyond bounds.
        MissingExtra: E730, ResourceError: E731, E733 or E734, where an identity could not be tried, after all others.
    """
    check_bounds(stanzas)
    failed: MissingExtra | ResourceError | None = None
    for identity in sorted(identities, key=lambda identity: not {*identity.kinds}.isdisjoint(PASSPHRASES)):
        try:
            yield from identity.unwrap(stanzas, binding)
        except (MissingExtra, ResourceError) as error:
            failed = failed or error
    if failed is not None:
        raise failed


def refusal(identities: Sequence[Identity], stanzas: Sequence[Stanza]) -> ArtifactRefused:
    """The error that says why `candidates` came to nothing, as far as that can be told.

    E729: none of the recipients is of the kind of an identity. E727: only passphrases were tried. E737: a recipient has
    the hint of a key that does not open it. E728: any other.
    """
    given = (
        " and ".join(dict.fromkeys(repr(identity).removeprefix("<").removesuffix(">") for identity in identities))
        or "no identity"
    )
    # What a header calls a kind that is not known here is not repeated: it may be anything.
    kinds = [str(stanza["type"]) if stanza["type"] in KNOWN else "of another kind" for stanza in stanzas]
    listed = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    tried = [identity for identity in identities if not {*identity.kinds}.isdisjoint(kinds)]
    if not tried:
        return ArtifactRefused(
            "E729",
            seen=f"{given}, for a file whose recipients are {listed}",
            expected="an identity of one of these kinds",
            fix="give the passphrase or key that the file was sealed for",
        )
    own = {(kind, identity.hint) for identity in tried for kind in identity.kinds if identity.hint}
    if not own.isdisjoint((str(stanza["type"]), str(stanza.get("id", ""))) for stanza in stanzas):
        return ArtifactRefused(
            "E737",
            seen=f"{given}: a recipient has the id of this key, and yet the key does not open it",
            expected="a recipient as it was written",
            fix="get the file again: its header is damaged or was changed",
        )
    if all({*identity.kinds} <= {*PASSPHRASES} for identity in tried):
        return ArtifactRefused(
            "E727",
            seen=f"a passphrase that opens none of the recipients ({listed})",
            expected="the passphrase that the file was sealed with",
            fix="check capitals, keyboard layout and blanks at the ends; if it is right, the file was changed",
        )
    return ArtifactRefused(
        "E728",
        seen=f"{given}, which opens none of the recipients ({listed})",
        expected="the key of one of the recipients",
        fix="give the key that the file was sealed for; if it is that key, the file was changed",
    )


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
        except FileNotFoundError:
            # A text may be a passphrase given in the wrong place: it is not repeated.
            seen = "a text that is no path of a key file" if isinstance(value, str) else f"nothing at {value}"
            raise _unusable(seen if value else keys.EMPTY) from None
    raise _unusable(f"a {type(value).__name__}")


def _unusable(seen: str) -> ConfigError:
    return ConfigError(
        "E724",
        seen=f"{seen}, where a recipient or identity is needed",
        expected="32 bytes, a key, the path of a key file, or Passphrase, PublicKey, PrivateKey or Kms",
        fix="give a passphrase as Passphrase(...), in commands by --passphrase; check a path",
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

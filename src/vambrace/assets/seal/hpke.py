"""File keys for the holder of a private key, by HPKE (RFC 9180, base mode) as the library has it.

`x25519` is DHKEM(X25519, HKDF-SHA256). `mlkem768-x25519` is X-Wing (draft-connolly-cfrg-xwing-kem), which holds as long
as one of ML-KEM-768 (FIPS 203) and X25519 does: what is recorded today stays closed to a quantum computer of tomorrow.
Both with HKDF-SHA256 and AES-256-GCM. The encapsulated key stands before the ciphertext.

Anybody who knows a public key can seal for it: who did, only a signature says.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import cryptography
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from vambrace.assets.seal import keys
from vambrace.assets.seal.stanzas import decode, encode, label, of_kind
from vambrace.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vambrace.assets.seal.stanzas import Stanza

__all__ = ["PrivateKey", "PublicKey", "available", "xwing_private", "xwing_public"]

HYBRID: Final = "mlkem768-x25519"
KINDS: Final = ("x25519", HYBRID)


class PublicKey:
    """A recipient: the holder of the private key that belongs to a public one.

    Args:
        value: the key of kind `x25519` or `mlkem768-x25519`; of a secret key its public part.
        anonymous: leave the hint out by which readers of the header could tell whom a file is for.

    Raises:
        ConfigError: E723, for a key of another kind.
        MissingExtra: E730, where the installed `cryptography` lacks HPKE or ML-KEM.
    """

    def __init__(self, value: keys.Public | keys.Secret, *, anonymous: bool = False) -> None:
        _needs(value.kind)
        self.key = value if isinstance(value, keys.Public) else value.public()
        self.kinds = (self.key.kind,)
        self.anonymous = anonymous

    def __repr__(self) -> str:
        return repr(self.key)

    def wrap(self, file_key: bytes, binding: bytes) -> dict[str, object]:
        """The stanza for this key; see `recipients.Recipient`.

        Raises:
            ConfigError: E723, for a public key that is none: a point of low order, coefficients beyond the modulus.
        """
        kind = self.key.kind
        try:
            sealed = _suite(kind).encrypt(file_key, _public(self.key), label(kind, binding))
        except ValueError as error:
            raise ConfigError(
                "E723",
                seen=f"{self.key!r}, which no private key belongs to",
                expected="a public key that was generated",
                fix="get the public key again from its owner",
            ) from error
        hint = {} if self.anonymous else {"id": self.key.id}
        return {"type": kind, "wrapped": encode(sealed), **hint}


class PrivateKey:
    """The identity that opens what was sealed for its public part.

    Args:
        key: of kind `x25519` or `mlkem768-x25519`.

    Raises:
        ConfigError: E723, for a key of another kind.
        MissingExtra: E730, where the installed `cryptography` lacks HPKE or ML-KEM.
    """

    def __init__(self, key: keys.Secret) -> None:
        _needs(key.kind)
        self.key = key
        self.kinds = (key.kind,)
        self.hint = key.id

    def __repr__(self) -> str:
        return f"<the private key of {self.key.public()!r}>"

    def unwrap(self, stanzas: Sequence[Stanza], binding: bytes) -> Iterator[bytes]:
        """The file keys that this key unwraps; see `recipients.Identity`."""
        kind = self.key.kind
        mine = of_kind(stanzas, kind, hint=self.hint)
        if not mine:
            return
        suite, private = _suite(kind), _private(self.key)
        for stanza in mine:
            try:
                file_key: bytes = suite.decrypt(decode(stanza["wrapped"]) or b"", private, label(kind, binding))
            except (InvalidTag, ValueError):
                # Another's, changed, or an encapsulated key that is no point or ciphertext.
                continue
            yield file_key


def available(kind: str) -> bool:
    """Whether the installed `cryptography` has what recipients of `kind` need."""
    try:
        suite = _suite(kind)
        if kind == HYBRID:
            _xwing(bytes(32))
    except (ImportError, AttributeError, UnsupportedAlgorithm):
        return False
    return suite is not None


def xwing_public(seed: bytes) -> bytes:
    """The X-Wing public key, 1,216 bytes, of a seed of 32 bytes (draft-connolly-cfrg-xwing-kem, section 5.2).

    Raises:
        MissingExtra: E730, where the installed `cryptography` lacks ML-KEM.
    """
    _needs(HYBRID)
    kem, curve = _xwing(seed)
    return kem.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()


def xwing_private(seed: bytes) -> Any:  # noqa: ANN401  older releases of the library lack the class
    """The library's private key of X-Wing for a seed of 32 bytes.

    Raises:
        ImportError: and others, where the installed `cryptography` lacks it; ask `available` before.
    """
    from cryptography.hazmat.primitives import hpke

    return hpke.MLKEM768X25519PrivateKey(*_xwing(seed))


def _xwing(seed: bytes) -> tuple[Any, X25519PrivateKey]:
    from cryptography.hazmat.primitives.asymmetric import mlkem

    # SHAKE256 of the seed: 64 bytes are the seed of ML-KEM (d and z of FIPS 203), 32 the private key of X25519.
    expanded = hashlib.shake_256(seed).digest(96)
    return mlkem.MLKEM768PrivateKey.from_seed_bytes(expanded[:64]), X25519PrivateKey.from_private_bytes(expanded[64:])


def _suite(kind: str) -> Any:  # noqa: ANN401  older releases of the library lack the class
    from cryptography.hazmat.primitives import hpke

    kem = hpke.KEM.MLKEM768_X25519 if kind == HYBRID else hpke.KEM.X25519
    return hpke.Suite(kem, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


def _private(key: keys.Secret) -> Any:  # noqa: ANN401  one of two types of the library
    return xwing_private(key.raw) if key.kind == HYBRID else X25519PrivateKey.from_private_bytes(key.raw)


def _public(key: keys.Public) -> Any:  # noqa: ANN401  one of two types of the library
    if key.kind != HYBRID:
        return X25519PublicKey.from_public_bytes(key.raw)
    from cryptography.hazmat.primitives import hpke
    from cryptography.hazmat.primitives.asymmetric import mlkem

    kem = mlkem.MLKEM768PublicKey.from_public_bytes(key.raw[:-32])
    return hpke.MLKEM768X25519PublicKey(kem, X25519PublicKey.from_public_bytes(key.raw[-32:]))


def _needs(kind: str) -> None:
    if kind not in KINDS:
        raise ConfigError(
            "E723",
            seen=f"a key of kind {kind} where a key pair that seals is needed",
            expected=" or ".join(KINDS),
            fix="keys of kind aes256 are given as Key; keys of kind ed25519 only sign",
        )
    if not available(kind):
        raise MissingExtra(
            "E730",
            seen=f"cryptography {cryptography.__version__}, which lacks what recipients of kind {kind} need",
            expected="HPKE" + (" and ML-KEM" if kind == HYBRID else "") + " in the library, on which alone we rely",
            fix="pip install --upgrade cryptography",
        )

"""HPKE recipients against a second implementation, written out from RFC 9180 and the draft of X-Wing, both ways."""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vambrace.assets.seal import hpke, keys, selftest
from vambrace.assets.seal.hpke import PrivateKey, PublicKey
from vambrace.errors import ConfigError, MissingExtra

FILE_KEY, BINDING = bytes(range(32)), bytes(range(100, 132))
KEM = {"x25519": 0x0020, "mlkem768-x25519": 0x647A}
LABEL = bytes.fromhex("5c2e2f2f5e5c")  # the six bytes of X-Wing's combiner


def extract(salt: bytes, key: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), key, "sha256")


def expand(prk: bytes, info: bytes, size: int) -> bytes:
    found, last = b"", b""
    for n in range(1, size // 32 + 2):
        last = hmac.digest(prk, last + info + bytes([n]), "sha256")
        found += last
    return found[:size]


def labeled_extract(suite: bytes, salt: bytes, label: bytes, key: bytes) -> bytes:
    return extract(salt, b"HPKE-v1" + suite + label + key)


def labeled_expand(suite: bytes, prk: bytes, label: bytes, info: bytes, size: int) -> bytes:
    return expand(prk, struct.pack(">H", size) + b"HPKE-v1" + suite + label + info, size)


def context(kem: int, shared: bytes, info: bytes, aead: int = 2) -> tuple[bytes, bytes]:
    """Key and base nonce: RFC 9180, section 5.1, base mode with HKDF-SHA256; the AEAD is AES-256-GCM unless said."""
    suite = b"HPKE" + struct.pack(">HHH", kem, 1, aead)
    hashed = labeled_extract(suite, b"", b"info_hash", info)
    schedule = b"\0" + labeled_extract(suite, b"", b"psk_id_hash", b"") + hashed
    secret = labeled_extract(suite, shared, b"secret", b"")
    return labeled_expand(suite, secret, b"key", schedule, 32), labeled_expand(
        suite, secret, b"base_nonce", schedule, 12
    )


def dhkem(dh: bytes, enc: bytes, public: bytes) -> bytes:
    """RFC 9180, section 4.1."""
    suite = b"KEM" + struct.pack(">H", KEM["x25519"])
    prk = labeled_extract(suite, b"", b"eae_prk", dh)
    return labeled_expand(suite, prk, b"shared_secret", enc + public, 32)


def xwing(seed: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    long = hashlib.shake_256(seed).digest(96)
    return MLKEM768PrivateKey.from_seed_bytes(long[:64]), X25519PrivateKey.from_private_bytes(long[64:])


def opened(kind: str, secret: bytes, enc: bytes) -> bytes:
    """The shared secret of an encapsulated key."""
    if kind == "x25519":
        private = X25519PrivateKey.from_private_bytes(secret)
        dh = private.exchange(X25519PublicKey.from_public_bytes(enc))
        return dhkem(dh, enc, private.public_key().public_bytes_raw())
    kem, curve = xwing(secret)
    ss = curve.exchange(X25519PublicKey.from_public_bytes(enc[1088:]))
    return hashlib.sha3_256(
        kem.decapsulate(enc[:1088]) + ss + enc[1088:] + curve.public_key().public_bytes_raw() + LABEL
    ).digest()


def sealed_to(kind: str, public: bytes) -> tuple[bytes, bytes]:
    """An encapsulated key and the shared secret."""
    own = X25519PrivateKey.generate()
    mine = own.public_key().public_bytes_raw()
    if kind == "x25519":
        return mine, dhkem(own.exchange(X25519PublicKey.from_public_bytes(public)), mine, public)
    first, ct = MLKEM768PublicKey.from_public_bytes(public[:1184]).encapsulate()
    ss = own.exchange(X25519PublicKey.from_public_bytes(public[1184:]))
    return ct + mine, hashlib.sha3_256(first + ss + mine + public[1184:] + LABEL).digest()


@pytest.mark.parametrize("kind", KEM)
def test_what_we_seal_the_second_implementation_opens_and_the_other_way(kind: keys.Kind) -> None:
    key = keys.generate(kind)
    info = b"vambrace-sealed/1 " + kind.encode() + b" " + BINDING
    stanza = PublicKey(key.public()).wrap(FILE_KEY, BINDING)
    wrapped = base64.b64decode(str(stanza["wrapped"]))
    size = len(wrapped) - 48
    aead, nonce = context(KEM[kind], opened(kind, key.raw, wrapped[:size]), info)
    assert AESGCM(aead).decrypt(nonce, wrapped[size:], None) == FILE_KEY

    enc, shared = sealed_to(kind, key.public().raw)
    aead, nonce = context(KEM[kind], shared, info)
    theirs = enc + AESGCM(aead).encrypt(nonce, FILE_KEY, None)
    stanza = {"type": kind, "wrapped": base64.b64encode(theirs).decode()}
    assert [*PrivateKey(key).unwrap([stanza], BINDING)] == [FILE_KEY]


def test_the_second_implementation_is_that_of_the_official_vectors() -> None:
    kinds = {"HPKE X25519": "x25519", "HPKE X-Wing": "mlkem768-x25519"}
    found = [vector for vector in selftest.vectors() if vector["primitive"] in kinds]
    assert len(found) == 2
    for vector in found:
        kind = kinds[vector["primitive"]]
        shared = opened(kind, vector["private"], vector["enc"])
        assert shared == vector["shared"]
        assert context(KEM[kind], shared, vector["info"], vector["aead"]) == (vector["key"], vector["nonce"])


def test_a_key_of_x_wing_is_that_of_the_draft() -> None:
    vector = next(vector for vector in selftest.vectors() if vector["primitive"] == "HPKE X-Wing")
    assert keys.Secret("mlkem768-x25519", vector["private"]).public().raw == vector["public"]
    kem, curve = xwing(vector["private"])
    assert vector["public"] == kem.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()


@pytest.mark.parametrize("raw", [bytes(32), (1).to_bytes(32, "little"), (2**255 - 20).to_bytes(32, "little")])
def test_public_keys_that_nobody_has_are_refused(raw: bytes) -> None:
    with pytest.raises(ConfigError, match=r"E723.*no private key"):
        PublicKey(keys.Public("x25519", raw)).wrap(FILE_KEY, BINDING)
    with pytest.raises(ConfigError, match=r"E723.*no private key"):
        PublicKey(keys.Public("mlkem768-x25519", keys.generate("mlkem768-x25519").public().raw[:-32] + raw)).wrap(
            FILE_KEY, BINDING
        )


def test_coefficients_beyond_the_modulus_are_refused() -> None:
    """FIPS 203, section 7.2."""
    raw = b"\xff" * 1152 + keys.generate("mlkem768-x25519").public().raw[1152:]
    with pytest.raises(ConfigError, match="E723"):
        PublicKey(keys.Public("mlkem768-x25519", raw)).wrap(FILE_KEY, BINDING)


def test_an_older_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    key = keys.generate("x25519")
    both = keys.generate("mlkem768-x25519")
    public = both.public()
    name = "cryptography.hazmat.primitives.hpke"
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, name, None)
        patch.delattr("cryptography.hazmat.primitives.hpke", raising=False)
        assert not hpke.available("x25519")
        for run in (lambda: PublicKey(key), lambda: PrivateKey(key), lambda: PublicKey(public), both.public):
            with pytest.raises(MissingExtra, match=r"E730.*pip install --upgrade cryptography"):
                run()
    with monkeypatch.context() as patch:
        # A library that has HPKE, but not the hybrid KEM.
        from cryptography.hazmat.primitives import hpke as theirs

        class Older:
            X25519 = theirs.KEM.X25519

        patch.setattr(theirs, "KEM", Older)
        assert hpke.available("x25519")
        assert not hpke.available("mlkem768-x25519")
        PublicKey(key).wrap(FILE_KEY, BINDING)
        with pytest.raises(MissingExtra, match=r"E730.*ML-KEM"):
            PublicKey(public)
    assert hpke.available("mlkem768-x25519")

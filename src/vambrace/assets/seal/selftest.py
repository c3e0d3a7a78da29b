"""Does the installed library compute what the standards say? Official vectors for every primitive that sealing uses.

    >>> [result.name for result in run() if not result.passed and not result.missing]
    []

The vectors lie in `vectors.json` with their sources: RFCs, NIST's CAVS files, and the drafts of SM4, X-Wing and HPKE
with post-quantum KEMs. Some must be refused (`valid` is false). HPKE draws at random when it seals, so its vectors are
used from the other side: the standard's own AEAD key and nonce seal a text, which the library must open.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import InternalError, InvalidSignature, InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from vambrace.assets.seal.hpke import xwing_private, xwing_public
from vambrace.assets.seal.suites import NONCE_BYTES, Suite, aead

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Result", "run", "vectors"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one primitive.

    Attributes:
        name: of the primitive, such as "AES-256-GCM".
        passed: the library gives the standard's answer to each vector.
        source: where the vectors come from.
        missing: the installed library does not have it; then `passed` is False.
        note: what went wrong, or what is missing; "" otherwise.
    """

    name: str
    passed: bool
    source: str
    missing: bool = False
    note: str = ""


@cache
def vectors() -> tuple[Mapping[str, Any], ...]:
    """All vectors; binary values are bytes. Each has `primitive`, `source` and `valid` beside what it needs."""
    text = resources.files("vambrace.assets.seal").joinpath("vectors.json").read_text(encoding="utf-8")
    words = {"primitive", "source"}
    return tuple(
        {
            key: bytes.fromhex(value) if isinstance(value, str) and key not in words else value
            for key, value in each.items()
        }
        for each in json.loads(text)
    )


def run() -> tuple[Result, ...]:
    """Every primitive with its vectors, in a fraction of a second."""
    return tuple(_tried(name, check) for name, check in _CHECKS.items())


def _tried(name: str, check: Callable[[Mapping[str, Any]], bool]) -> Result:
    mine = [vector for vector in vectors() if vector["primitive"] == name]
    source = "; ".join(dict.fromkeys(vector["source"] for vector in mine))
    for vector in mine:
        try:
            right = check(vector)
        except (ImportError, AttributeError, UnsupportedAlgorithm):
            return Result(
                name=name, passed=False, source=source, missing=True, note="the installed cryptography lacks it"
            )
        except (InvalidTag, InvalidSignature, ValueError):
            right = None
        except InternalError as error:
            return Result(name=name, passed=False, source=source, note=str(error)[:200])
        # A vector that must be refused is one that raises, not one that gives another answer.
        if right is not (True if vector["valid"] else None):
            return Result(name=name, passed=False, source=source, note=f"another answer than {vector['source']}")
    return Result(name=name, passed=bool(mine), source=source, note="" if mine else "no vectors")


def _aead(cipher: Callable[[bytes], Any]) -> Callable[[Mapping[str, Any]], bool]:
    def check(given: Mapping[str, Any]) -> bool:
        key, nonce, sealed, aad = (given[name] for name in ("key", "nonce", "sealed", "aad"))
        plain = cipher(key).decrypt(nonce, sealed, aad)
        return plain == given["plain"] and cipher(key).encrypt(nonce, plain, aad) == sealed

    return check


def _aes_256_gcm(given: Mapping[str, Any]) -> bool:
    """In one call, and in the steps that seal a chunk whose bytes lie in several places."""
    if not _aead(AESGCM)(given):
        return False
    plain, nonce, sealed = given["plain"], given["nonce"], given["sealed"]
    out = bytearray(len(sealed))
    if len(nonce) == NONCE_BYTES:
        cipher = aead(Suite.AES_256_GCM, given["key"])
        cipher.seal_parts(nonce, [plain[:5], plain[5:]], given["aad"], memoryview(out))
    return len(nonce) != NONCE_BYTES or out == sealed


def _gcm_siv(key: bytes) -> Any:  # noqa: ANN401  builds of the library may lack the class
    from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

    return AESGCMSIV(key)


def _sm4_gcm(given: Mapping[str, Any]) -> bool:
    key, nonce, sealed, aad = (given[name] for name in ("key", "nonce", "sealed", "aad"))
    reader = Cipher(algorithms.SM4(key), modes.GCM(nonce, sealed[-16:])).decryptor()
    reader.authenticate_additional_data(aad)
    plain = reader.update(sealed[:-16]) + reader.finalize()
    writer = Cipher(algorithms.SM4(key), modes.GCM(nonce)).encryptor()
    writer.authenticate_additional_data(aad)
    return plain == given["plain"] and writer.update(plain) + writer.finalize() + writer.tag == sealed


def _cbc(algorithm: Callable[[bytes], Any]) -> Callable[[Mapping[str, Any]], bool]:
    def check(given: Mapping[str, Any]) -> bool:
        cipher = Cipher(algorithm(given["key"]), modes.CBC(given["nonce"]))
        writer, reader = cipher.encryptor(), cipher.decryptor()
        sealed = writer.update(given["plain"]) + writer.finalize()
        return sealed == given["sealed"] and reader.update(sealed) + reader.finalize() == given["plain"]

    return check


def _sha256(given: Mapping[str, Any]) -> bool:
    return hashlib.sha256(given["message"]).digest() == given["output"]


def _hmac(given: Mapping[str, Any]) -> bool:
    return hmac.digest(given["key"], given["message"], "sha256") == given["output"]


def _hkdf(given: Mapping[str, Any]) -> bool:
    kdf = HKDF(hashes.SHA256(), len(given["output"]), given["salt"], given["info"])
    return kdf.derive(given["key"]) == given["output"]


def _argon2id(given: Mapping[str, Any]) -> bool:
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    costs = {"iterations": given["passes"], "lanes": given["lanes"], "memory_cost": given["memory_kib"]}
    kdf = Argon2id(salt=given["salt"], length=len(given["output"]), ad=given["aad"], secret=given["secret"], **costs)
    return kdf.derive(given["key"]) == given["output"]


def _scrypt(given: Mapping[str, Any]) -> bool:
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    kdf = Scrypt(given["salt"], len(given["output"]), given["n"], given["r"], given["p"])
    return kdf.derive(given["key"]) == given["output"]


def _x25519(given: Mapping[str, Any]) -> bool:
    public = X25519PublicKey.from_public_bytes(given["public"])
    return X25519PrivateKey.from_private_bytes(given["key"]).exchange(public) == given["output"]


def _hpke(given: Mapping[str, Any], private: Any, public: bytes) -> bool:  # noqa: ANN401  one of two types
    from cryptography.hazmat.primitives import hpke

    hybrid = given["primitive"] == "HPKE X-Wing"
    cipher, aead = {
        2: (AESGCM, hpke.AEAD.AES_256_GCM),
        3: (ChaCha20Poly1305, hpke.AEAD.CHACHA20_POLY1305),
    }[given["aead"]]
    suite = hpke.Suite(hpke.KEM.MLKEM768_X25519 if hybrid else hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, aead)
    sealed = cipher(given["key"]).encrypt(given["nonce"], b"a text", None)
    opened = suite.decrypt(given["enc"] + sealed, private, given["info"])
    again = suite.decrypt(suite.encrypt(b"another", private.public_key(), given["info"]), private, given["info"])
    return opened == b"a text" and again == b"another" and public == given["public"]


def _hpke_x25519(given: Mapping[str, Any]) -> bool:
    private = X25519PrivateKey.from_private_bytes(given["private"])
    return _hpke(given, private, private.public_key().public_bytes_raw())


def _hpke_xwing(given: Mapping[str, Any]) -> bool:
    return _hpke(given, xwing_private(given["private"]), xwing_public(given["private"]))


def _mlkem(given: Mapping[str, Any]) -> bool:
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

    private = MLKEM768PrivateKey.from_seed_bytes(given["private"])
    right = private.public_key().public_bytes_raw() == given["public"]
    shared, enc = private.public_key().encapsulate()
    return right and private.decapsulate(given["enc"]) == given["output"] and private.decapsulate(enc) == shared


def _ed25519(given: Mapping[str, Any]) -> bool:
    Ed25519PublicKey.from_public_bytes(given["public"]).verify(given["output"], given["message"])
    private = Ed25519PrivateKey.from_private_bytes(given["private"])
    right = private.public_key().public_bytes_raw() == given["public"]
    return right and private.sign(given["message"]) == given["output"]


_CHECKS: Final[Mapping[str, Callable[[Mapping[str, Any]], bool]]] = {
    "AES-256-GCM": _aes_256_gcm,
    "AES-192-GCM": _aead(AESGCM),
    "AES-128-GCM": _aead(AESGCM),
    "ChaCha20-Poly1305": _aead(ChaCha20Poly1305),
    "AES-256-GCM-SIV": _aead(_gcm_siv),
    "SM4-GCM": _sm4_gcm,
    "AES-CBC": _cbc(algorithms.AES),
    "SM4-CBC": _cbc(algorithms.SM4),
    "SHA-256": _sha256,
    "HMAC-SHA256": _hmac,
    "HKDF-SHA256": _hkdf,
    "Argon2id": _argon2id,
    "scrypt": _scrypt,
    "X25519": _x25519,
    "HPKE X25519": _hpke_x25519,
    "ML-KEM-768": _mlkem,
    "HPKE X-Wing": _hpke_xwing,
    "Ed25519": _ed25519,
}

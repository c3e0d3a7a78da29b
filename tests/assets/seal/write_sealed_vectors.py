"""Writes tests/vectors/sealed/*.json: `python tests/assets/seal/write_sealed_vectors.py`.

Everything is fixed and comes from `naive_sealed`, which follows docs/formats/sealed-v1.md and nothing else, so that the
files are the same each time. Only the encapsulation of ML-KEM is random: its vector is kept where it is there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from assets.seal.naive_sealed import HEADER, Naive, b64, expand, extract, wrap

FOLDER = Path(__file__).resolve().parents[2] / "vectors" / "sealed"
RANDOM = "mlkem768-x25519"
KEY = bytes(range(32))
SIGNER = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
READER = X25519PrivateKey.from_private_bytes(b"\x0a" * 32)
PASSPHRASE = "café au lait"
ABC = Naive(b"abc", key=KEY, metadata={"licence": "MIT"}, public={"name": "net", "provenance": {"base": "\u20ac"}})


def split(data: bytes) -> dict[str, str]:
    """A file as the vectors hold it, without the zeros of its header."""
    return {
        "head": b64(data[: HEADER - 32].rstrip(b"\0")),
        "mac": b64(data[HEADER - 32 : HEADER]),
        "rest": b64(data[HEADER:]),
    }


def good(comment: str, file: Naive, identity: tuple[str, str] = ("key", b64(KEY))) -> dict[str, Any]:
    signer = b64(file.signer.public_key().public_bytes_raw()) if file.signer else None
    return {
        "comment": comment,
        **split(file.data()),
        "identity": dict(zip(("kind", "value"), identity, strict=True)),
        "expect": {
            "content": b64(file.content),
            "kind": file.kind,
            "metadata": file.metadata,
            "public": file.public,
            "signer": signer,
        },
    }


def bad(comment: str, file: Naive | bytes, code: str, seen: str, key: bytes = KEY) -> dict[str, Any]:
    data = file.data() if isinstance(file, Naive) else file
    identity = {"kind": "key", "value": b64(key)}
    return {"comment": comment, **split(data), "identity": identity, "expect": {"error": code, "seen": seen}}


def flipped(data: bytes, at: int) -> bytes:
    at %= len(data)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def vectors() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and content of every vector that is not random."""
    yield "bytes", good("Three bytes for a raw key.", ABC)
    for suite, name in ((2, "chacha20"), (3, "gcm-siv"), (4, "sm4")):
        yield f"suite-{name}", good("Another suite.", dataclasses.replace(ABC, suite=suite))
    yield "empty", good("No content: one chunk of no bytes.", dataclasses.replace(ABC, content=b""))
    yield "unknown-size", good("Written without a size.", dataclasses.replace(ABC, size=None))
    yield "padded", good("Nine bytes and one of padding.", dataclasses.replace(ABC, content=b"ninebytes", pad=True))
    said = {"name": "A. Smith", "role": "release", "date": "2026-01-02T03:04:05Z"}
    yield "signed", good("Signed.", dataclasses.replace(ABC, signer=SIGNER, said=said))
    long = hashlib.shake_256(b"two chunks").digest(65_541)
    two = dataclasses.replace(ABC, content=long, signer=SIGNER, pad=True)
    yield "two-chunks", good("Two chunks, padded, signed: a tree of two leaves.", two)
    yield "largest-chunks", good("Chunks of 16 MiB.", dataclasses.replace(ABC, chunk_size=2**24))
    manifest = b'{"files":[{"path":"a/b.txt","size":1},{"path":"c","size":2}]}'
    start = (len(manifest).to_bytes(8, "little") + manifest).ljust(128, b"\0")
    folder = (start + b"B").ljust(192, b"\0") + b"CC"
    yield "folder", good("A folder of two files.", dataclasses.replace(ABC, content=folder, kind="folder"))
    tensors = (56).to_bytes(8, "little") + b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}  ' + bytes(4)
    yield "tensors", good("A safetensors file.", dataclasses.replace(ABC, content=tensors, kind="tensors"))
    yield from recipients()
    yield from refused()


def recipients() -> Iterator[tuple[str, dict[str, Any]]]:
    def sealed(*stanzas: dict[str, Any]) -> Naive:
        return dataclasses.replace(ABC, recipients=list(stanzas))

    binding, secret = ABC.binding(), PASSPHRASE.encode()
    costs = {"memory_kib": 8192, "passes": 2, "lanes": 2}
    argon = Argon2id(salt=b"a" * 16, length=32, iterations=2, lanes=2, memory_cost=8192).derive(secret)
    argon2id = {"type": "argon2id", "salt": b64(b"a" * 16), **costs, "wrapped": under(argon, "argon2id", binding)}
    yield "argon2id", good("A passphrase, Argon2id.", sealed(argon2id), ("passphrase", PASSPHRASE))
    decomposed = ("passphrase", unicodedata.normalize("NFD", PASSPHRASE))
    yield "argon2id-decomposed", good("The same, typed in another normal form.", sealed(argon2id), decomposed)
    hashed = Scrypt(salt=b"s" * 16, length=32, n=2**10, r=8, p=2).derive(secret)
    scrypt = {"type": "scrypt", "salt": b64(b"s" * 16), "log_n": 10, "r": 8, "p": 2}
    scrypt["wrapped"] = under(hashed, "scrypt", binding)
    yield "scrypt", good("A passphrase, scrypt.", sealed(scrypt), ("passphrase", PASSPHRASE))
    public = READER.public_key().public_bytes_raw()
    x25519 = {"type": "x25519", "wrapped": hpke(ABC.file_key, b"vambrace-sealed/1 x25519 " + binding, public)}
    private = ("x25519", b64(READER.private_bytes_raw()))
    yield "x25519", good("A public key.", sealed(x25519), private)
    hinted = x25519 | {"id": hashlib.sha256(public).hexdigest()[:16]}
    yield "x25519-hint", good("A public key and its hint.", sealed(hinted), private)
    later = {"type": "of a later release", "anything": [1, {"two": None}]}
    key = wrap(KEY, ABC.key_salt, ABC.file_key, binding)
    yield "several", good("Several recipients, one of an unknown kind.", sealed(later, scrypt, hinted, key))


def refused() -> Iterator[tuple[str, dict[str, Any]]]:
    data = ABC.data()
    yield "bad-magic", bad("Another magic.", flipped(data, 0), "E700", "a file that begins with 88 56")
    yield "bad-version", bad("Version 2.", dataclasses.replace(ABC, version=2), "E701", "version 2")
    yield "bad-suite", bad("Suite 0.", data[:10] + b"\0" + data[11:], "E701", "suite 0")
    yield "bad-mac", bad("The header's HMAC is another.", flipped(data, HEADER - 1), "E702", "a header whose HMAC")
    zeros = b"\1" + bytes(HEADER - 33 - 116 - len(ABC.header_text()))
    yield "bad-zeros", bad("A bit behind the text.", dataclasses.replace(ABC, zeros=zeros), "E702", "bytes behind")
    spelt = dataclasses.replace(ABC, text=ABC.header_text().replace(b":", b": ", 1))
    yield "bad-spelling", bad("JSON that is not canonical.", spelt, "E702", "a text that is not the header's object")
    more = dataclasses.replace(ABC, text=ABC.header_text().replace(b'"epoch":0', b'"epoch":0,"more":0'))
    yield "bad-key-added", bad("A key that the format does not name.", more, "E702", "a text that is not")
    other = dataclasses.replace(ABC, text=ABC.header_text().replace(b"net", b"not"))
    yield "bad-public", bad("A public description that was changed.", other, "E702", "descriptions that are not those")
    private = dataclasses.replace(ABC, description=b'{"content":"bytes","metadata":{},"size":3,"x":0}')
    yield "bad-private", bad("A private description of other keys.", private, "E711", "a private description")
    yield "bad-key", bad("Another key.", ABC, "E728", "a secret key, which opens none", bytes(32))
    commits = dataclasses.replace(ABC, commitment=bytes(32))
    yield "bad-commitment", bad("Committed to another key.", commits, "E728", "a secret key, which opens none")
    bomb = {"type": "argon2id", "salt": b64(bytes(16)), "memory_kib": 2**31, "passes": 1, "lanes": 1}
    asks = dataclasses.replace(ABC, recipients=[bomb | {"wrapped": b64(bytes(48))}])
    yield "bad-bounds", bad("Two TiB of password hashing.", asks, "E726", "memory_kib 2147483648")
    yield "bad-tag", bad("A bit of the ciphertext.", flipped(data, HEADER + 4), "E705", "chunk 0 is not authentic")
    yield "bad-frame", bad("A frame without the last bit.", flipped(data, HEADER + 2), "E705", "chunk 0 announces")
    yield "bad-foot", bad("A bit of the foot.", flipped(data, -1), "E708", "a trailer that is not authentic")
    yield "bad-cut", bad("Without the last byte.", data[:-1], "E706", "a trailer without its foot")
    yield "bad-cut-chunk", bad("Without trailer and tag.", data[: HEADER + 7], "E706", "the end")
    yield "bad-added", bad("One byte more.", data + b"\0", "E707", "bytes after the foot")
    padding = dataclasses.replace(ABC, padding=b"\1")
    yield "bad-padding", bad("Padding that is not zero.", padding, "E711", "padding that is not zero")
    yield "bad-size", bad("A size beyond the content.", dataclasses.replace(ABC, size=4), "E711", "3 bytes")
    expired = dataclasses.replace(ABC, metadata={"expires": "2001-01-01T00:00:00Z"})
    yield "bad-expired", bad("Past its date.", expired, "E710", "a file that expired at 2001-01-01T00:00:00Z")
    swapped = dataclasses.replace(ABC, signer=SIGNER)
    forged = dataclasses.replace(swapped, statement=swapped.sign(1, 3, bytes(32)))
    yield "bad-signature", bad("A signature over another root.", forged, "E741", "a signature that")


def under(wrapping: bytes, kind: str, binding: bytes) -> str:
    aad = f"vambrace-sealed/1 {kind} ".encode() + binding
    return b64(AESGCM(wrapping).encrypt(bytes(12), ABC.file_key, aad))


def hpke(plain: bytes, info: bytes, public: bytes) -> str:
    """RFC 9180, base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, with a fixed ephemeral key."""
    kem, suite = b"KEM\0\x20", b"HPKE\0\x20\0\1\0\2"

    def labeled_extract(salt: bytes, label: bytes, secret: bytes, suite_id: bytes) -> bytes:
        return extract(salt or bytes(32), b"HPKE-v1" + suite_id + label + secret)

    def labeled_expand(prk: bytes, label: bytes, about: bytes, length: int, suite_id: bytes) -> bytes:
        return expand(prk, length.to_bytes(2, "big") + b"HPKE-v1" + suite_id + label + about, length)

    ephemeral = X25519PrivateKey.from_private_bytes(b"\x0e" * 32)
    encapsulated = ephemeral.public_key().public_bytes_raw()
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(public))
    prk = labeled_extract(b"", b"eae_prk", shared, kem)
    secret = labeled_expand(prk, b"shared_secret", encapsulated + public, 32, kem)
    context = b"\0" + labeled_extract(b"", b"psk_id_hash", b"", suite) + labeled_extract(b"", b"info_hash", info, suite)
    schedule = labeled_extract(secret, b"secret", b"", suite)
    key = labeled_expand(schedule, b"key", context, 32, suite)
    nonce = labeled_expand(schedule, b"base_nonce", context, 12, suite)
    return b64(encapsulated + AESGCM(key).encrypt(nonce, plain, b""))


def of_mlkem() -> dict[str, Any]:
    from vambrace.assets.seal.keys import Secret
    from vambrace.assets.seal.recipients import as_recipient

    secret = Secret(RANDOM, b"\x0b" * 32)
    stanza = as_recipient(secret.public()).wrap(ABC.file_key, ABC.binding())
    file = dataclasses.replace(ABC, recipients=[stanza])
    return good("A public key of ML-KEM-768 with X25519.", file, (RANDOM, b64(b"\x0b" * 32)))


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, vector in vectors():
        (FOLDER / f"{name}.json").write_text(spelt(vector), encoding="utf-8")
    if not (path := FOLDER / f"{RANDOM}.json").exists():
        path.write_text(spelt(of_mlkem()), encoding="utf-8")


def spelt(vector: dict[str, Any]) -> str:
    return json.dumps(vector, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()

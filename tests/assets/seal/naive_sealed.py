"""Sealed files once more, from docs/formats/sealed-v1.md alone: whole in memory, slow, and nobody else's code.

Serves as a second opinion, writes the test vectors, and lets tests be holders of a key who do not keep to the format:
every part can be replaced before the file is put together.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV, ChaCha20Poly1305

MAGIC = b"\x89VBSEAL\n"
HEADER = 65_536
KEY_SIZES = {1: 32, 2: 32, 3: 32, 4: 16}


def expand(prk: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand, RFC 5869, section 2.3."""
    out, block, counter = b"", b"", 1
    while len(out) < length:
        block = hmac.new(prk, block + info + bytes([counter]), "sha256").digest()
        out, counter = out + block, counter + 1
    return out[:length]


def extract(salt: bytes, secret: bytes) -> bytes:
    return hmac.new(salt, secret, "sha256").digest()


def subkey(file_key: bytes, salt: bytes, suite: int, label: str, length: int) -> bytes:
    return expand(extract(salt, file_key), b"vambrace-sealed/1 " + label.encode() + bytes([suite]), length)


def encrypt(suite: int, key: bytes, nonce: bytes, plain: bytes, aad: bytes) -> bytes:
    if suite == 4:
        encryptor = Cipher(algorithms.SM4(key), modes.GCM(nonce)).encryptor()
        encryptor.authenticate_additional_data(aad)
        return encryptor.update(plain) + encryptor.finalize() + encryptor.tag
    return {1: AESGCM, 2: ChaCha20Poly1305, 3: AESGCMSIV}[suite](key).encrypt(nonce, plain, aad)


def decrypt(suite: int, key: bytes, nonce: bytes, sealed: bytes, aad: bytes) -> bytes:
    if suite == 4:
        decryptor = Cipher(algorithms.SM4(key), modes.GCM(nonce, sealed[-16:])).decryptor()
        decryptor.authenticate_additional_data(aad)
        return decryptor.update(sealed[:-16]) + decryptor.finalize()
    return {1: AESGCM, 2: ChaCha20Poly1305, 3: AESGCMSIV}[suite](key).decrypt(nonce, sealed, aad)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def canonical(data: Any) -> bytes:
    """RFC 8785, for the integers and ASCII keys that tests use."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def merkle(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, of leaves that are hashed already."""
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + merkle(leaves[:k]) + merkle(leaves[k:])).digest()


def wrap(key: bytes, salt: bytes, file_key: bytes, binding: bytes) -> dict[str, Any]:
    """The stanza of a raw key."""
    wrapping = expand(extract(salt, key), b"vambrace-sealed/1 key", 32)
    wrapped = AESGCM(wrapping).encrypt(bytes(12), file_key, b"vambrace-sealed/1 key " + binding)
    return {"type": "key", "salt": b64(salt), "wrapped": b64(wrapped)}


def padme(size: int) -> int:
    if size < 2:
        return size
    exponent = len(bin(size)) - 3
    kept = len(bin(exponent)) - 2
    step = 2 ** (exponent - kept)
    return -(-size // step) * step


@dataclass
class Naive:
    """One file. Set what shall differ, then `data()`; everything else follows from it."""

    content: bytes
    key: bytes = bytes(range(32))
    file_key: bytes = b"f" * 32
    salt: bytes = b"s" * 32
    suite: int = 1
    chunk_size: int = 65_536
    kind: Any = "bytes"
    size: Any = "known"
    pad: bool = False
    padding: bytes | None = None
    metadata: Any = field(default_factory=dict)
    public: Any = field(default_factory=dict)
    epoch: Any = 0
    key_salt: bytes = b"w" * 32
    recipients: Any = None
    signer: Ed25519PrivateKey | None = None
    said: dict[str, Any] = field(default_factory=lambda: {"name": "", "role": "", "date": "2026-01-01T00:00:00Z"})
    version: int = 1
    commitment: bytes | None = None
    description: bytes | None = None
    text: bytes | None = None
    zeros: bytes | None = None
    foot: dict[str, int] = field(default_factory=dict)
    leaves: list[bytes] | None = None
    statement: bytes | None = None

    def sub(self, label: str, length: int = 32) -> bytes:
        return subkey(self.file_key, self.salt, self.suite, label, length)

    def head(self) -> bytes:
        commitment = self.sub("commit") if self.commitment is None else self.commitment
        start = MAGIC + self.version.to_bytes(2, "little") + bytes([self.suite, 0])
        return start + self.chunk_size.to_bytes(4, "little") + self.salt + commitment

    def private(self) -> bytes:
        size = len(self.content) if self.size == "known" else self.size
        plain = self.description
        if plain is None:
            plain = canonical({"content": self.kind, "size": size, "metadata": self.metadata})
        return encrypt(self.suite, self.sub("private", KEY_SIZES[self.suite]), bytes(12), plain, self.head())

    def fixed(self) -> bytes:
        both = canonical({"private": b64(self.private()), "public": self.public})
        return self.head() + hashlib.sha256(both).digest()

    def binding(self) -> bytes:
        return hashlib.sha256(self.fixed()).digest()

    def header_text(self) -> bytes:
        if self.text is not None:
            return self.text
        recipients = self.recipients
        if recipients is None:
            recipients = [wrap(self.key, self.key_salt, self.file_key, self.binding())]
        fields = {"epoch": self.epoch, "private": b64(self.private()), "public": self.public, "recipients": recipients}
        return canonical(fields)

    def region(self) -> bytes:
        text = self.header_text()
        start = self.fixed() + len(text).to_bytes(4, "little") + text
        start += bytes(HEADER - 32 - len(start)) if self.zeros is None else self.zeros
        return start + hmac.new(self.sub("header"), start, "sha256").digest()

    def stream(self) -> bytes:
        if self.padding is not None:
            return self.content + self.padding
        return self.content + bytes(padme(len(self.content)) - len(self.content) if self.pad else 0)

    def record(self, index: int, last: bool, plain: bytes) -> bytes:
        nonce = self.sub("nonce", 7) + index.to_bytes(4, "big") + bytes([last])
        sealed = encrypt(self.suite, self.sub("data", KEY_SIZES[self.suite]), nonce, plain, self.binding())
        return (len(plain) | (2**31 if last else 0)).to_bytes(4, "little") + sealed

    def records(self) -> list[bytes]:
        stream, size = self.stream(), self.chunk_size
        plains = [stream[at : at + size] for at in range(0, len(stream), size)] or [b""]
        return [self.record(i, i == len(plains) - 1, plain) for i, plain in enumerate(plains)]

    def trailer(self, records: list[bytes]) -> bytes:
        total = sum(len(record) - 20 for record in records)
        leaves, statement = self.leaves or [], self.statement or b""
        if self.signer and self.leaves is None:
            leaves = [hashlib.sha256(b"\x00" + record).digest() for record in records]
        if self.signer and self.statement is None:
            statement = self.sign(len(records), total, merkle(leaves))
        numbers = {"chunks": len(records), "stream": total, "leaves": 32 * len(leaves), "statement": len(statement)}
        numbers |= {"zero": 0} | self.foot
        widths = {"chunks": 8, "stream": 8, "leaves": 8, "statement": 4, "zero": 4}
        foot = b"VBSEALTR" + b"".join(numbers[name].to_bytes(width, "little") for name, width in widths.items())
        before = b"".join(leaves) + statement
        return before + foot + hmac.new(self.sub("trailer"), self.binding() + before + foot, "sha256").digest()

    def sign(self, chunks: int, stream: int, root: bytes) -> bytes:
        assert self.signer
        said = {**self.said, "signer": b64(self.signer.public_key().public_bytes_raw())}
        message = {**said, "binding": self.binding().hex(), "chunks": chunks, "root": root.hex(), "stream": stream}
        signature = self.signer.sign(b"vambrace-sealed-signature/1\n" + canonical(message))
        return canonical({**said, "signature": b64(signature)})

    def parts(self) -> tuple[bytes, list[bytes], bytes]:
        """Header, chunks, trailer."""
        records = self.records()
        return self.region(), records, self.trailer(records)

    def data(self) -> bytes:
        region, records, trailer = self.parts()
        return region + b"".join(records) + trailer


def open_naively(data: bytes, key: bytes) -> dict[str, Any]:
    """What is in a valid file, by the page; asserts where anything is not as the page says."""
    fixed, suite = data[:112], data[10]
    size = int.from_bytes(data[12:16], "little")
    length = int.from_bytes(data[112:116], "little")
    text = json.loads(data[116 : 116 + length])
    assert canonical(text) == data[116 : 116 + length]
    assert data[:10] == MAGIC + b"\x01\x00"
    assert set(data[116 + length : 65_504]) <= {0}
    binding = hashlib.sha256(fixed).digest()
    (stanza,) = [each for each in text["recipients"] if each["type"] == "key"]
    wrapping = expand(extract(base64.b64decode(stanza["salt"]), key), b"vambrace-sealed/1 key", 32)
    aad = b"vambrace-sealed/1 key " + binding
    file_key = AESGCM(wrapping).decrypt(bytes(12), base64.b64decode(stanza["wrapped"]), aad)

    def sub(label: str, length: int = 32) -> bytes:
        return subkey(file_key, data[16:48], suite, label, length)

    assert data[48:80] == sub("commit")
    assert data[80:112] == hashlib.sha256(canonical({name: text[name] for name in ("private", "public")})).digest()
    assert data[65_504:HEADER] == hmac.new(sub("header"), data[:65_504], "sha256").digest()
    private = base64.b64decode(text["private"])
    description = json.loads(decrypt(suite, sub("private", KEY_SIZES[suite]), bytes(12), private, data[:80]))
    at, stream, leaves, last = HEADER, b"", [], False
    while not last:
        frame = int.from_bytes(data[at : at + 4], "little")
        last, plain = frame >= 2**31, frame % 2**31
        assert plain == size if not last else plain <= size
        record = data[at : at + plain + 20]
        nonce = sub("nonce", 7) + len(leaves).to_bytes(4, "big") + bytes([last])
        stream += decrypt(suite, sub("data", KEY_SIZES[suite]), nonce, record[4:], binding)
        leaves.append(hashlib.sha256(b"\x00" + record).digest())
        at += len(record)
    foot, rest = data[-72:], data[at:-72]
    assert foot[:8] == b"VBSEALTR"
    counts = [int.from_bytes(foot[a:b], "little") for a, b in ((8, 16), (16, 24), (24, 32), (32, 36), (36, 40))]
    assert counts[:2] == [len(leaves), len(stream)]
    assert counts[2:] == [counts[2], len(rest) - counts[2], 0]
    assert foot[40:] == hmac.new(sub("trailer"), binding + rest + foot[:40], "sha256").digest()
    content = stream if description["size"] is None else stream[: description["size"]]
    assert set(stream[len(content) :]) <= {0}
    assert rest[: counts[2]] in {b"", b"".join(leaves)}
    return {
        "content": content,
        "description": description,
        "text": text,
        "stream": len(stream),
        "chunks": len(leaves),
        "root": merkle(leaves),
        "statement": json.loads(rest[counts[2] :]) if counts[2] else None,
    }

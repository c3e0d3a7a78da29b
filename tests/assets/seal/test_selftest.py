"""The self test passes here, and fails for every wrong answer that a library could give."""

from __future__ import annotations

import json
import time
from importlib import resources

import pytest
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import mlkem
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV, ChaCha20Poly1305

from vambrace.assets.seal import selftest

VALID = [vector for vector in selftest.vectors() if vector["valid"]]
# Words, and what a vector carries for another test.
UNUSED = {"shared", "source", "primitive"}


def test_every_primitive_passes_in_a_fraction_of_a_second() -> None:
    start = time.process_time()
    results = selftest.run()
    spent = time.process_time() - start
    assert [result for result in results if not result.passed] == []
    assert {result.name for result in results} == {vector["primitive"] for vector in selftest.vectors()}
    assert len(results) >= 18
    assert all(result.source and not result.note for result in results)
    assert spent < 2


def test_every_vector_names_its_source_and_those_of_each_primitive_differ() -> None:
    raw = json.loads(resources.files("vambrace.assets.seal").joinpath("vectors.json").read_text())
    assert all(vector["source"].split()[0] in KNOWN for vector in raw)
    texts = [json.dumps({**vector, "source": ""}, sort_keys=True) for vector in raw]
    assert len(texts) == len(set(texts))
    assert sum(not vector["valid"] for vector in raw) >= 6


KNOWN = {
    "RFC",
    "NIST",
    "FIPS",
    "OpenSSL,",
    "draft-ribose-cfrg-sm4-10,",
    "draft-ietf-hpke-pq,",
    "post-quantum-cryptography/KAT,",
}


@pytest.mark.parametrize("vector", VALID, ids=lambda vector: f"{vector['primitive']} {vector['source']}"[:60])
def test_a_wrong_byte_anywhere_in_a_vector_fails_it(vector: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the check looks at every value that the vector has, and a library that answers differently is found out."""
    check = selftest._CHECKS[vector["primitive"]]
    assert selftest._tried(vector["primitive"], check).passed
    for field, value in vector.items():
        if not isinstance(value, bytes) or not value or field in UNUSED:
            continue
        wrong = bytearray(value)
        wrong[len(value) // 3] ^= 0x10
        monkeypatch.setattr(selftest, "vectors", lambda field=field, wrong=wrong: ({**vector, field: bytes(wrong)},))
        result = selftest._tried(vector["primitive"], check)
        assert (result.passed, result.missing) == (False, False), field
        assert "another answer" in result.note


@pytest.mark.parametrize("name", [vector["primitive"] for vector in selftest.vectors() if not vector["valid"]])
def test_a_library_that_accepts_what_must_be_refused_fails(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for answer in (True, False):
        monkeypatch.setitem(selftest._CHECKS, name, lambda _, answer=answer: answer)
        results = {result.name: result for result in selftest.run()}
        assert not results[name].passed


def test_what_is_missing_is_told_from_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object, **__: object) -> None:
        raise UnsupportedAlgorithm("not here")

    monkeypatch.setattr(mlkem.MLKEM768PrivateKey, "from_seed_bytes", absent)
    results = {result.name: result for result in selftest.run()}
    for name in ("ML-KEM-768", "HPKE X-Wing"):
        assert (results[name].passed, results[name].missing) == (False, True)
    assert results["HPKE X25519"].passed


def test_a_primitive_without_vectors_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "vectors", lambda: ())
    assert not any(result.passed for result in selftest.run())


AEADS = {"AES-256-GCM": AESGCM, "ChaCha20-Poly1305": ChaCha20Poly1305, "AES-256-GCM-SIV": AESGCMSIV}


@pytest.mark.parametrize("name", AEADS)
def test_aeads_refuse_every_changed_bit_of_tag_text_data_and_nonce(name: str) -> None:
    """As Wycheproof asks: modified tags, ciphertexts, associated data and nonces; cut tags; wrong sizes of nonces."""
    for vector in VALID:
        if vector["primitive"] != name:
            continue
        cipher = AEADS[name](vector["key"])
        good = {field: vector[field] for field in ("nonce", "sealed", "aad")}
        assert cipher.decrypt(good["nonce"], good["sealed"], good["aad"]) == vector["plain"]
        for field, value in good.items():
            for bit in range(8 * min(len(value), 64)):
                changed = bytearray(value)
                changed[-1 - bit // 8] ^= 1 << bit % 8
                given = good | {field: bytes(changed)}
                with pytest.raises(InvalidTag):
                    cipher.decrypt(given["nonce"], given["sealed"], given["aad"])
        for sealed in (good["sealed"][:-1], good["sealed"] + b"\0", good["sealed"][:-16], good["sealed"][-15:], b""):
            with pytest.raises(InvalidTag):
                cipher.decrypt(good["nonce"], sealed, good["aad"])
        for size in (0, 1, 7):
            with pytest.raises(ValueError, match=r"(?i)nonce"):
                cipher.decrypt(bytes(size), good["sealed"], good["aad"])


def test_ed25519_refuses_changed_signatures_and_keys_of_small_order() -> None:
    from cryptography.exceptions import InvalidSignature

    for vector in VALID:
        if vector["primitive"] != "Ed25519":
            continue
        key = Ed25519PublicKey.from_public_bytes(vector["public"])
        for bit in range(512):
            changed = bytearray(vector["output"])
            changed[bit // 8] ^= 1 << bit % 8
            with pytest.raises(InvalidSignature):
                key.verify(bytes(changed), vector["message"])
        with pytest.raises(InvalidSignature):
            key.verify(vector["output"], vector["message"] + b"\0")


LOW_ORDER = [
    # u = 0, 1, the two points of order 8, and p - 1, p, p + 1 (Bernstein's list, cr.yp.to/ecdh.html).
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    2**255 - 20,
    2**255 - 19,
    2**255 - 18,
]


@pytest.mark.parametrize("u", LOW_ORDER)
def test_x25519_gives_no_secret_for_points_of_low_order(u: int) -> None:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    public = X25519PublicKey.from_public_bytes(u.to_bytes(32, "little"))
    with pytest.raises(ValueError, match="shared key"):
        X25519PrivateKey.generate().exchange(public)

"""Four AEADs behind one interface; official vectors are in the self-test."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm

from assets.seal.naive_sealed import encrypt
from vambrace.assets.seal import suites
from vambrace.assets.seal.suites import KEY_BYTES, TAG_BYTES, Suite, aead, available
from vambrace.errors import ConfigError

NONCE = bytes(range(12))


@pytest.mark.parametrize("suite", Suite)
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 70_000])
def test_sealed_and_opened(suite: Suite, size: int) -> None:
    key, plain = bytes(KEY_BYTES[suite]), bytes(range(251)) * (size // 251 + 1)
    plain = plain[:size]
    cipher, sealed = aead(suite, key), bytearray(size + TAG_BYTES)
    cipher.seal_into(NONCE, memoryview(plain), b"aad", memoryview(sealed))
    assert sealed == encrypt(suite, key, NONCE, plain, b"aad")
    out = bytearray(b"\xee" * size)
    cipher.open_into(NONCE, sealed, b"aad", memoryview(out))
    assert out == plain


@pytest.mark.parametrize("suite", Suite)
@pytest.mark.parametrize(
    "ends", [[0], [0, 0, 0], [5], [0, 5, 5, 21], [16, 33, 33, 50_001, 70_000], [*range(0, 70_000, 3_001)]]
)
def test_parts_are_sealed_as_the_whole(suite: Suite, ends: list[int]) -> None:
    key, plain = bytes(KEY_BYTES[suite]), memoryview(bytes(range(250)) * 281)[: ends[-1]]
    sealed = memoryview(bytearray(b"\xee" * (len(plain) + TAG_BYTES)))
    parts = [plain[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    aead(suite, key).seal_parts(NONCE, parts, b"aad", sealed)
    assert sealed == encrypt(suite, key, NONCE, bytes(plain), b"aad")


@pytest.mark.parametrize("suite", Suite)
def test_what_is_not_authentic_leaves_zeros(suite: Suite) -> None:
    cipher, sealed = aead(suite, bytes(KEY_BYTES[suite])), bytearray(1000 + TAG_BYTES)
    cipher.seal_into(NONCE, b"x" * 1000, b"aad", sealed)
    for at in (0, 999, 1000, 1015):
        changed = bytearray(sealed)
        changed[at] ^= 1
        out = bytearray(b"\xee" * 1000)
        with pytest.raises(InvalidTag):
            cipher.open_into(NONCE, changed, b"aad", out)
        assert out == bytes(1000)
    for nonce, aad in ((bytes(12), b"aad"), (NONCE, b"add")):
        out = bytearray(b"\xee" * 1000)
        with pytest.raises(InvalidTag):
            cipher.open_into(nonce, sealed, aad, out)
        assert out == bytes(1000)


@pytest.mark.parametrize("suite", Suite)
def test_keys_of_another_size(suite: Suite) -> None:
    for size in (0, 15, 24, 33):
        with pytest.raises(ValueError, match="a key of"):
            aead(suite, bytes(size))


def test_a_suite_that_openssl_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(key: bytes) -> None:
        raise UnsupportedAlgorithm("not here")

    available.cache_clear()
    monkeypatch.setitem(suites._CLASSES, Suite.AES_256_GCM_SIV, missing)
    try:
        assert [each for each in Suite if not available(each)] == [Suite.AES_256_GCM_SIV]
        with pytest.raises(ConfigError, match="E713: suite AES_256_GCM_SIV") as caught:
            aead(Suite.AES_256_GCM_SIV, bytes(32))
        assert "SM4_GCM" in caught.value.expected
    finally:
        available.cache_clear()
    monkeypatch.undo()
    assert all(map(available, Suite))
    available.cache_clear()

"""Signatures: RFC 8032's own, what else must not pass, and the words that may be signed."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from vambrace.assets.seal import origin
from vambrace.errors import ConfigError

PRIME = 2**255 - 19
TWIST = -121665 * pow(121666, -1, PRIME) % PRIME

# RFC 8032, section 7.1: secret key, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032)
def test_published_signatures(secret: str, public: str, message: str, signature: str) -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    data = bytes.fromhex(message)
    assert origin.public_bytes(key).hex() == public
    for cut in range(len(data) + 1):  # where the domain ends makes no difference to the signature itself
        assert origin.sign(key, data[:cut], data[cut:]).hex() == signature
    assert origin.holds(bytes.fromhex(public), bytes.fromhex(signature), b"", data)
    assert not origin.holds(bytes.fromhex(public), bytes.fromhex(signature), b"another/1\n", data)
    other = RFC_8032[0 if public != RFC_8032[0][1] else 1]
    assert not origin.holds(bytes.fromhex(other[1]), bytes.fromhex(signature), b"", data)


def test_every_bit_counts() -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    signature = origin.sign(key, b"d/1\n", b"text")
    for bit in range(512):
        changed = bytearray(signature)
        changed[bit // 8] ^= 1 << bit % 8
        assert not origin.holds(origin.public_bytes(key), bytes(changed), b"d/1\n", b"text")


def test_one_signature_has_one_spelling() -> None:
    """S and S + L are the same scalar; RFC 8032 wants the smaller."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    signature = origin.sign(key, b"", b"text")
    order = 2**252 + 27742317777372353535851937790883648493
    scalar = int.from_bytes(signature[32:], "little") + order
    assert not origin.holds(origin.public_bytes(key), signature[:32] + scalar.to_bytes(32, "little"), b"", b"text")


def doubled(point: tuple[int, int]) -> tuple[int, int]:
    x, y = point
    mixed = TWIST * x * x * y * y % PRIME
    return 2 * x * y * pow(1 + mixed, -1, PRIME) % PRIME, (y * y + x * x) * pow(1 - mixed, -1, PRIME) % PRIME


def small_order() -> set[int]:
    """y of all points whose order divides 8: eight times points all over the curve's cofactors, by arithmetic."""
    order = 2**252 + 27742317777372353535851937790883648493
    found: set[int] = set()
    for y in range(2, 60):
        square = (y * y - 1) * pow(TWIST * y * y + 1, -1, PRIME) % PRIME
        x = pow(square, (PRIME + 3) // 8, PRIME)
        if (x * x - square) % PRIME:
            x = x * pow(2, (PRIME - 1) // 4, PRIME) % PRIME
        if (x * x - square) % PRIME:
            continue
        total, power = (0, 1), (x, y)  # the prime order times the point leaves its part of small order
        for bit in range(order.bit_length()):
            if order >> bit & 1:
                total = added(total, power)
            power = doubled(power)
        found.add(total[1])
    return found


def added(one: tuple[int, int], two: tuple[int, int]) -> tuple[int, int]:
    mixed = TWIST * one[0] * two[0] * one[1] * two[1] % PRIME
    return (
        (one[0] * two[1] + two[0] * one[1]) * pow(1 + mixed, -1, PRIME) % PRIME,
        (one[1] * two[1] + one[0] * two[0]) * pow(1 - mixed, -1, PRIME) % PRIME,
    )


def test_keys_that_vouch_for_nothing() -> None:
    weak = small_order()
    assert len(weak) == 5
    for y in weak | {PRIME, PRIME + 1}:
        for sign in (0, 1):
            key = (y | sign << 255).to_bytes(32, "little")
            assert not origin.allowed(key)
            # With S = 0 and R the neutral element, such a key fits one message in eight or more without any secret.
            neutral = (1).to_bytes(32, "little")
            for number in range(40):
                assert not origin.holds(key, neutral + bytes(32), b"", str(number).encode())
    assert origin.allowed(bytes.fromhex(RFC_8032[0][1]))
    assert not origin.allowed(b"")
    assert not origin.holds(bytes(31), bytes(64), b"", b"")
    assert not origin.holds(bytes.fromhex(RFC_8032[0][1]), bytes(63), b"", b"")


def test_the_library_alone_would_let_a_weak_key_pass() -> None:
    """Negative control: the list above is needed."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    neutral = (1).to_bytes(32, "little")
    Ed25519PublicKey.from_public_bytes(neutral).verify(neutral + bytes(32), b"anything")


@pytest.mark.parametrize("text", ["", "A. Smith", "ü" * 200, "a\u200db", "名前"])
def test_words(text: str) -> None:
    assert origin.is_words(text)


@pytest.mark.parametrize(
    "text", ["a" * 201, "a\n", "\x1b[31m", "\x7f", "\x9b", "a\u2028", "\u202egnp", "\u2066", "\ud800", 3, None]
)
def test_what_are_no_words(text: object) -> None:
    assert not origin.is_words(text)
    if isinstance(text, str):
        for words in ((text, ""), ("", text)):
            with pytest.raises(ConfigError, match="E746"):
                origin.described(*words, "2026-04-02T18:15:30Z")


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("2026-04-02T18:15:30Z", True),
        ("2024-02-29T00:00:00Z", True),
        ("2026-02-29T00:00:00Z", False),
        ("2026-04-02T18:15:60Z", False),
        ("2026-04-02T24:00:00Z", False),
        ("2026-04-02T18:15:30", False),
        ("2026-04-02 18:15:30Z", False),
        ("2026-4-2T18:15:30Z", False),
        ("2026-04-02T18:15:30Z\n", False),
        ("٢٠٢٦-04-02T18:15:30Z", False),
        (None, False),
    ],
)
def test_dates(text: object, holds: bool) -> None:
    assert origin.is_date(text) is holds
    if isinstance(text, str) and not holds:
        with pytest.raises(ConfigError, match="E746"):
            origin.described("", "", text)


@pytest.mark.parametrize("text", ["AAA", "AAA=\n", "AB==", "A A=", "AA=A", "AA\u00e9=", None, 5])
def test_base64_has_one_spelling(text: object) -> None:
    assert origin.decoded(text, 2) is None
    assert origin.decoded("AAA=", 2) == bytes(2)
    assert origin.decoded("AAA=", 3) is None

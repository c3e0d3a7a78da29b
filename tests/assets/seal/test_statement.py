"""The statement of a sealed file's signer: for this file, by this key, in one spelling."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from vambrace.assets.seal import origin, statement
from vambrace.core import canonical
from vambrace.errors import ArtifactRefused, ConfigError

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
DATE = "2026-04-02T18:15:30Z"
ROOT = hashlib.sha256(b"root").digest()


@dataclasses.dataclass(frozen=True)
class Head:
    binding: bytes = hashlib.sha256(b"fixed").digest()


def make(**changed: Any) -> bytes:
    values = {
        "signing_key": KEY,
        "fixed": Head(),
        "count": 3,
        "stream_size": 2_100_000,
        "root": ROOT,
        "name": "A. Smith",
        "role": "release",
        "date": DATE,
    }
    return statement.make(**(values | changed))


def check(data: bytes, **changed: Any) -> statement.Statement:
    return statement.check(data, **({"fixed": Head(), "count": 3, "stream_size": 2_100_000, "root": ROOT} | changed))


def test_what_was_said_comes_back() -> None:
    assert check(make()) == statement.Statement(
        signer=origin.public_bytes(KEY), name="A. Smith", role="release", date=DATE
    )
    assert check(make(name="", role="")).name == ""


def test_the_bytes_are_those_of_the_format() -> None:
    """Written out by hand from the format's page, so that a change of spelling is seen."""
    signer = origin.encoded(origin.public_bytes(KEY))
    binding, root = Head().binding.hex(), ROOT.hex()
    words = f'"date":"{DATE}","name":"A. Smith","role":"release"'
    said = f'{{"binding":"{binding}","chunks":3,{words},"root":"{root}","signer":"{signer}","stream":2100000}}'
    signature = origin.encoded(KEY.sign(b"vambrace-sealed-signature/1\n" + said.encode()))
    assert make().decode() == f'{{{words},"signature":"{signature}","signer":"{signer}"}}'


@pytest.mark.parametrize(
    "changed",
    [
        {"fixed": Head(hashlib.sha256(b"other").digest())},
        {"count": 4},
        {"stream_size": 2_100_001},
        {"root": hashlib.sha256(b"other").digest()},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_for_another_file_it_does_not_hold(changed: dict[str, Any]) -> None:
    with pytest.raises(ArtifactRefused, match="E741"):
        check(make(), **changed)
    check(make(**changed), **changed)


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "B. Smith"},
        {"role": "review"},
        {"date": "2026-04-02T18:15:31Z"},
        {"signer": origin.encoded(origin.public_bytes(OTHER))},
        {"signature": origin.encoded(bytes(64))},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_no_word_of_it_can_be_changed(changed: dict[str, str]) -> None:
    with pytest.raises(ArtifactRefused, match="E741"):
        check(canonical.dumps(json.loads(make()) | changed))


def test_the_longest_one_fits() -> None:
    data = make(name="\U0001f511" * 200, role="\U0001f511" * 200)
    assert len(data) <= statement.MOST_BYTES
    check(data)


@pytest.mark.parametrize("name", ["a" * 201, "\x1b[31mroot", "\u202egnp"])
def test_words_that_cannot_be_signed(name: str) -> None:
    with pytest.raises(ConfigError, match="E746"):
        make(name=name)


def bad() -> dict[str, bytes]:
    """Bytes that are no statement, each with the reason as its name."""
    good: dict[str, Any] = json.loads(make())

    def spelt(**changed: object) -> bytes:
        return canonical.dumps(good | changed)

    return {
        "empty": b"",
        "no JSON": b"{",
        "a list": b"[]",
        "a number": b"1",
        "a key less": canonical.dumps({key: value for key, value in good.items() if key != "role"}),
        "a key more": spelt(extra=1),
        "spaces": json.dumps(good).encode(),
        "another order": json.dumps(dict(reversed(good.items())), separators=(",", ":")).encode(),
        "a key twice": make().replace(b'{"date"', b'{"date":"","date"'),
        "more behind": make() + b"\n",
        "UTF-16": make().decode().encode("utf-16"),
        "a lone surrogate": make().replace(b"A. Smith", rb"\ud800"),
        "too deep": b"[" * 16_000,
        "too long": make() + b" " * statement.MOST_BYTES,
        "name a number": spelt(name=1),
        "name too long": spelt(name="a" * 201),
        "name with an escape": spelt(name="\x1b[2J"),
        "role null": spelt(role=None),
        "date in words": spelt(date="today"),
        "date impossible": spelt(date="2026-13-01T00:00:00Z"),
        "signer short": spelt(signer=origin.encoded(bytes(31))),
        "signer weak": spelt(signer=origin.encoded((1).to_bytes(32, "little"))),
        "signer without padding": spelt(signer=good["signer"].rstrip("=")),
        "signature long": spelt(signature=origin.encoded(bytes(65))),
        "signature in another spelling": spelt(
            signature=good["signature"][:-3] + chr(ord(good["signature"][-3]) + 1) + "=="
        ),
        "signature a list": spelt(signature=[]),
    }


@pytest.mark.parametrize("why", bad())
def test_what_is_no_statement(why: str) -> None:
    with pytest.raises(ArtifactRefused, match="E740"):
        check(bad()[why])


@given(st.data())
def test_no_byte_can_be_changed(data: st.DataObject) -> None:
    written = bytearray(make())
    at = data.draw(st.integers(0, len(written) - 1))
    written[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ArtifactRefused, match="E74[01]"):
        check(bytes(written))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_a_reason(data: bytes) -> None:
    with pytest.raises(ArtifactRefused, match="E740"):
        check(data)


def test_who_is_accepted() -> None:
    said, key, other = check(make()), origin.public_bytes(KEY), origin.public_bytes(OTHER)
    statement.demand(said, {key})
    statement.demand(said, [other, key])
    statement.demand(said, ())
    statement.demand(None, ())
    with pytest.raises(ArtifactRefused, match="E743") as unknown:
        statement.demand(said, {other})
    assert origin.encoded(key) in unknown.value.seen
    assert origin.encoded(other) in unknown.value.expected
    with pytest.raises(ArtifactRefused, match="E742") as stripped:
        statement.demand(None, {other})
    assert stripped.value.exit_code == 3

"""Descriptions: what metadata can be, when it expires, and that the private one is."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest

from vambrace.assets.seal.description import Description, canonical_object, expiry, fault, open_private, seal_private
from vambrace.assets.seal.schedule import FileKeys
from vambrace.assets.seal.suites import Suite, aead
from vambrace.core import canonical
from vambrace.errors import ArtifactRefused, ConfigError

KEYS = FileKeys(bytes(32), bytes(32), Suite.AES_256_GCM)
HEAD = bytes(80)


def nested(depth: int) -> dict[str, Any]:
    return {"a": nested(depth - 1)} if depth > 1 else {}


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"a": None, "b": True, "c": "", "d": -1.5, "e": [1, [], {}]},
        nested(8),
        {"expires": "2028-02-29T23:59:59Z", "licence": "", "provenance": {}},
    ],
)
def test_metadata_that_can_be(data: Any) -> None:
    assert fault(data) == ""


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ([], "not an object"),
        (None, "not an object"),
        (nested(9), "more than 8 deep"),
        ({"a": [[[[[[[[]]]]]]]]}, "more than 8 deep"),
        ({"a": b""}, "holds a bytes"),
        ({"a": [{1}]}, "holds a set"),
        ({"expires": "2027-02-29T23:59:59Z"}, "expires"),
        ({"expires": "2027-02-28T24:00:00Z"}, "expires"),
        ({"expires": "2027-02-28"}, "expires"),
        ({"expires": "2027-02-28T00:00:00+00:00"}, "expires"),
        ({"expires": "2027-02-28T00:00:00Z\n"}, "expires"),
        ({"expires": "２０２７-02-28T00:00:00Z"}, "expires"),
        ({"expires": None}, "expires"),
        ({"expires": 0}, "expires"),
        ({"licence": None}, "licence"),
        ({"provenance": []}, "provenance"),
    ],
)
def test_metadata_that_cannot_be(data: Any, why: str) -> None:
    assert why in fault(data)


def test_the_earlier_date_counts() -> None:
    late, early = {"expires": "2030-01-01T00:00:01Z"}, {"expires": "2030-01-01T00:00:00Z"}
    assert expiry({}, {}) is None
    assert expiry(late, {}) == datetime(2030, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert expiry(late, early) == expiry(early, late) == datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"1",
        b'{"b":1,"a":1}',
        b'{"a":1,"a":1}',
        b'{"a": 1}',
        b'{"a":1.0}',
        b'{"a":-0}',
        b'{"a":NaN}',
        b'{"a":1e999}',
        b'{"a":"\\u0041"}',
        b'{"a":"\\ud800"}',
        b'{"\\ud800":1}',
        b'{"a":"\xff"}',
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":1}\n',
        b'{"a":1}{}',
        b'{"a":9007199254740993}',
        b'{"a":' + b"[" * 60_000 + b"]" * 60_000 + b"}",
    ],
)
def test_other_spellings_are_refused(text: bytes) -> None:
    assert canonical_object(text) is None


def test_the_one_spelling_is_taken() -> None:
    text = '{"a":[1,-1.5,1e+21,null,true,"€"],"b":{}}'.encode()
    assert canonical_object(text) == {"a": [1, -1.5, 1e21, None, True, "€"], "b": {}}


@pytest.mark.parametrize("suite", Suite)
@pytest.mark.parametrize(
    "description",
    [
        Description(content="bytes", size=None, metadata={}),
        Description(content="folder", size=0, metadata={"a": "€" * 100}),
        Description(content="tensors", size=2**53, metadata=nested(8)),
    ],
)
def test_round_trip(suite: Suite, description: Description) -> None:
    keys = FileKeys(bytes(32), bytes(32), suite)
    sealed = seal_private(description, keys, suite, HEAD)
    assert open_private(sealed, keys, suite, HEAD) == description
    for wrong in (b"x" * 80, b""):
        with pytest.raises(ArtifactRefused, match="E702"):
            open_private(sealed, keys, suite, wrong)
    for changed in (sealed[:-1], b"x" + sealed[1:], sealed[:16]):
        with pytest.raises(ArtifactRefused, match="E702"):
            open_private(changed, keys, suite, HEAD)


GOOD: dict[str, Any] = {"content": "bytes", "size": 1, "metadata": {}}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"content": "pickle"}, "content"),
        ({"content": None}, "content"),
        ({"content": []}, "content"),
        ({"size": -1}, "size"),
        ({"size": 1.5}, "size"),
        ({"size": True}, "size"),
        ({"size": "1"}, "size"),
        ({"size": 2.0**60}, "size"),
        ({"metadata": []}, "metadata"),
        ({"metadata": nested(9)}, "deep"),
        ({"metadata": {"expires": ""}}, "expires"),
        ({"more": 1}, "keys"),
    ],
)
def test_descriptions_that_cannot_be(change: dict[str, Any], why: str) -> None:
    data = GOOD | change
    plain = canonical.dumps(data)
    sealed = bytearray(len(plain) + 16)
    aead(Suite.AES_256_GCM, KEYS.private).seal_into(bytes(12), plain, HEAD, sealed)
    with pytest.raises(ArtifactRefused, match=f"E711.*{why}"):
        open_private(bytes(sealed), KEYS, Suite.AES_256_GCM, HEAD)
    if set(data) == set(GOOD):
        with pytest.raises(ConfigError, match=f"E714.*{why}"):
            seal_private(Description(**data), KEYS, Suite.AES_256_GCM, HEAD)


@pytest.mark.parametrize(
    "plain", [b"", b"[]", b'{"content":"bytes","metadata":{}}', b'{"size":1,"content":"bytes"}', b"{"]
)
def test_other_texts_are_no_description(plain: bytes) -> None:
    sealed = bytearray(len(plain) + 16)
    aead(Suite.AES_256_GCM, KEYS.private).seal_into(bytes(12), plain, HEAD, sealed)
    with pytest.raises(ArtifactRefused, match="E711"):
        open_private(bytes(sealed), KEYS, Suite.AES_256_GCM, HEAD)


def test_it_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Description(**GOOD).size = 2  # type: ignore[misc]

"""The bytes of a detached signature: the vectors of its format, and what must not verify."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from vambrace.assets.seal import origin, signature
from vambrace.assets.seal.subject import Entry, Subject
from vambrace.errors import ArtifactRefused, ConfigError

VECTORS = sorted((Path(__file__).parents[2] / "vectors" / "signature").glob("*.json"))
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(32, 64)))
DATE = "2026-04-02T18:15:30Z"
FILE = Subject("file", (Entry("", "f" * 64, 14),))


def vector(name: str) -> tuple[bytes, dict[str, Any]]:
    data = json.loads((VECTORS[0].parent / f"{name}.json").read_text())
    return base64.b64decode(data["signature"]), data["expect"]


def by(data: bytes, key: Ed25519PrivateKey, **changed: str) -> bytes:
    return signature.added(data, key, **({"name": "A. Smith", "role": "release", "date": DATE} | changed))


@pytest.mark.parametrize("name", [path.stem for path in VECTORS])
def test_vectors(name: str) -> None:
    data, expect = vector(name)
    if "error" in expect:
        with pytest.raises(ArtifactRefused, match=f"^{expect['error']}: ") as caught:
            signature.parse(data)
        assert len(str(caught.value)) < 700
        assert str(caught.value).isprintable()
        return
    found = signature.parse(data)
    assert found.subject.as_json() == expect["subject"]
    assert [
        {"date": each.date, "name": each.name, "role": each.role, "signer": origin.encoded(each.signer)}
        for each in found.entries
    ] == expect["entries"]
    # Ed25519 gives the same signature again, so what is accepted is also written byte for byte.
    again = signature.begun(found.subject)
    for each in found.entries:
        key = KEY if each.signer == origin.public_bytes(KEY) else OTHER
        again = signature.added(again, key, name=each.name, role=each.role, date=each.date)
    assert again == data


def test_there_are_vectors_of_both_sorts() -> None:
    codes = [vector(path.stem)[1].get("error") for path in VECTORS]
    assert {None, "E741", "E744"} == set(codes)
    assert len(codes) > 60


def test_another_entry_changes_none_above() -> None:
    one = by(signature.begun(FILE), KEY)
    two = by(one, OTHER, name="B", role="review")
    assert two.startswith(one)
    first, second = signature.parse(two).entries
    assert (first,) == signature.parse(one).entries
    assert (second.signer, second.name) == (origin.public_bytes(OTHER), "B")


@pytest.mark.parametrize("changed", [{"name": "a" * 201}, {"role": "\x1b"}, {"date": "today"}])
def test_words_that_cannot_be_signed(changed: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="E746"):
        by(signature.begun(FILE), KEY, **changed)


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signature, "MOST_ENTRIES", 3)
    data = signature.begun(FILE)
    for _ in range(3):
        data = by(data, KEY)
    assert len(signature.parse(data).entries) == 3
    with pytest.raises(ConfigError, match="E746"):
        by(data, KEY)
    monkeypatch.setattr(signature, "MOST_ENTRIES", 2)
    with pytest.raises(ArtifactRefused, match="E744"):
        signature.parse(data)
    monkeypatch.setattr(signature, "MOST_ENTRIES", 1000)
    monkeypatch.setattr(signature, "MOST_BYTES", len(data) - 1)
    with pytest.raises(ArtifactRefused, match="E744"):
        signature.parse(data)


def test_no_entry_is_longer_than_a_reader_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    longest = by(signature.begun(FILE), KEY, name="\U0001f511" * 200, role='"' * 200)
    line = longest.split(b"\n")[2]
    assert 1000 < len(line) <= signature.MOST_ENTRY
    assert signature.parse(longest).entries[0].role == '"' * 200
    monkeypatch.setattr(signature, "MOST_ENTRY", len(line) - 1)
    with pytest.raises(ArtifactRefused, match="E744.*longer"):
        signature.parse(longest)


def test_what_can_be_signed_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = signature.MOST_SUBJECT + signature.MOST_ENTRIES * (signature.MOST_ENTRY + 1) + 100
    assert whole <= signature.MOST_BYTES
    line = len(signature.begun(FILE).split(b"\n")[1])
    monkeypatch.setattr(signature, "MOST_SUBJECT", line)
    data = by(signature.begun(FILE), KEY)
    assert signature.parse(data).subject == FILE
    monkeypatch.setattr(signature, "MOST_SUBJECT", line - 1)
    with pytest.raises(ArtifactRefused, match="E747"):
        signature.begun(FILE)
    with pytest.raises(ArtifactRefused, match="E744.*longer"):
        signature.parse(data)


@given(st.data())
def test_no_byte_can_be_changed_or_cut(data: st.DataObject) -> None:
    written = vector("three")[0]
    at = data.draw(st.integers(0, len(written) - 1))
    if data.draw(st.booleans()):
        changed = bytearray(written)
        changed[at] ^= data.draw(st.integers(1, 255))
        wrong = bytes(changed)
    else:
        wrong = written[:at] + written[at + data.draw(st.integers(1, 400)) :]
    # Only whole entries from the end may be missing unnoticed: the format says so.
    if wrong in {b"".join(line + b"\n" for line in written.split(b"\n")[:count]) for count in (3, 4)}:
        return
    with pytest.raises(ArtifactRefused, match="E74[14]"):
        signature.parse(wrong)


@given(st.binary(max_size=100), st.sampled_from([b"", b"vambrace-signature/1\n", b"vambrace-signature/1\n{}\n"]))
def test_any_bytes_are_refused_with_a_reason(data: bytes, before: bytes) -> None:
    with pytest.raises(ArtifactRefused, match="E744"):
        signature.parse(before + data)

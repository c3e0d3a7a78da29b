"""From a header to keys: in which order things are believed, and which error says what."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from assets.seal.harness import KEY, identities
from assets.seal.naive_sealed import Naive, wrap
from vambrace.assets.seal import opening
from vambrace.assets.seal.opening import check_expiry, open_header, read_sidecar, sidecar_path
from vambrace.errors import ArtifactRefused, ResourceError

FILE = Naive(b"abc", metadata={"licence": "MIT"})
REGION = FILE.region()


class Offering:
    """An identity that offers these candidates."""

    kinds = ("key",)
    hint = ""

    def __init__(self, *keys: bytes | Exception) -> None:
        self.keys = keys
        self.asked = 0

    def wrap(self, file_key: bytes, binding: bytes) -> dict[str, object]:
        raise AssertionError

    def unwrap(self, stanzas: Sequence[Any], binding: bytes) -> Iterator[bytes]:
        self.asked += 1
        assert binding == FILE.binding()
        for key in self.keys:
            if isinstance(key, Exception):
                raise key
            yield key

    def __repr__(self) -> str:
        return "<an offer>"


def test_it_opens() -> None:
    opened = open_header(REGION, identities())
    assert opened.keys.file_key == FILE.file_key
    assert opened.description.metadata == {"licence": "MIT"}
    assert (opened.description.content, opened.description.size) == ("bytes", 3)
    assert "file_key" not in repr(opened)
    assert FILE.file_key.hex() not in repr(opened)
    assert repr(FILE.file_key) not in repr(opened)


def test_only_the_committed_key_opens() -> None:
    offered = Offering(b"g" * 32, b"", b"f" * 31, b"f" * 33, b"f" * 32)
    assert open_header(REGION, [Offering(), offered]).keys.file_key == FILE.file_key
    with pytest.raises(ArtifactRefused, match="E728"):
        open_header(REGION, [Offering(b"g" * 32)])
    with pytest.raises(ArtifactRefused, match="E729"):
        open_header(REGION, [])


def test_a_file_made_for_two_keys_opens_under_one() -> None:
    """AES-GCM alone does not commit: what is wrapped for another recipient has to be the committed key, too."""
    stanzas = [
        wrap(KEY, b"1" * 32, b"g" * 32, FILE.binding()),
        wrap(b"b" * 32, b"2" * 32, FILE.file_key, FILE.binding()),
    ]
    region = dataclasses.replace(FILE, recipients=stanzas).region()
    assert open_header(region, identities(b"b" * 32)).keys.file_key == FILE.file_key
    with pytest.raises(ArtifactRefused, match="E728"):
        open_header(region, identities())


def test_the_commitment_is_that_of_the_file_key() -> None:
    region = dataclasses.replace(FILE, commitment=b"c" * 32).region()
    with pytest.raises(ArtifactRefused, match="E728"):
        open_header(region, identities())


def test_nobody_is_asked_about_a_malformed_header() -> None:
    for changed in (b"x" + REGION[1:], REGION[:8] + b"\2" + REGION[9:], REGION[:-40] + b"x" + REGION[-39:]):
        offered = Offering(FILE.file_key)
        with pytest.raises(ArtifactRefused, match="E70[012]"):
            open_header(changed, [offered])
        assert not offered.asked


def test_a_service_that_fails_hides_no_other_key() -> None:
    failed = Offering(ResourceError("E733", seen="no answer", expected="one", fix="wait"))
    assert open_header(REGION, [failed, *identities()]).keys.file_key == FILE.file_key
    with pytest.raises(ResourceError, match="E733"):
        open_header(REGION, [failed, Offering()])


def test_a_right_key_and_a_wrong_mac_is_damage() -> None:
    with pytest.raises(ArtifactRefused, match="E702: a header whose HMAC"):
        open_header(REGION[:-1] + bytes([REGION[-1] ^ 1]), identities())


@pytest.mark.parametrize("where", ["metadata", "public"])
def test_expiry(where: str) -> None:
    date = datetime(2030, 1, 1, tzinfo=UTC)
    region = Naive(b"abc", **{where: {"expires": "2030-01-01T00:00:00Z"}}).region()
    before = date.replace(year=2029)
    opened = open_header(region, identities(), now=before)
    for now in (date, date.replace(year=2031)):
        with pytest.raises(ArtifactRefused, match="E710: a file that expired at 2030-01-01T00:00:00Z"):
            open_header(region, identities(), now=now)
        with pytest.raises(ArtifactRefused, match="E710"):
            check_expiry(opened, now)
        assert open_header(region, identities(), now=now, ignore_expiry=True).header == opened.header
    past = Naive(b"abc", **{where: {"expires": "2001-01-01T00:00:00Z"}}).region()
    with pytest.raises(ArtifactRefused, match="E710"):
        open_header(past, identities())


# Sidecars.


def sidecar(region: bytes) -> bytes:
    return region + hashlib.sha256(region).digest()


def changed(key: bytes) -> bytes:
    """The header of the same file for another key."""
    stanza = wrap(key, b"n" * 32, FILE.file_key, FILE.binding())
    return dataclasses.replace(FILE, epoch=1, recipients=[stanza]).region()


def test_a_sidecar_opens_what_the_file_does_not() -> None:
    new = changed(b"b" * 32)
    torn = new[:300] + bytes(100) + REGION[400:]
    assert open_header(torn, identities(b"b" * 32), sidecar=new).header.epoch == 1
    assert open_header(REGION, identities(b"b" * 32), sidecar=new).header.epoch == 1
    assert open_header(REGION, identities(), sidecar=new).header.epoch == 0
    with pytest.raises(ArtifactRefused, match="E702"):  # what is wrong with the file
        open_header(torn, identities(b"c" * 32), sidecar=new)
    with pytest.raises(ArtifactRefused, match="E702"):
        open_header(torn, identities(b"b" * 32), sidecar=new[:-1] + bytes([new[-1] ^ 1]))


def test_only_whole_sidecars_of_the_same_file_count(tmp_path: Path) -> None:
    path, place = tmp_path / "a.sealed", tmp_path / ".a.sealed.header"
    assert sidecar_path(path) == place
    assert read_sidecar(path, REGION) is None
    new = changed(b"b" * 32)
    place.write_bytes(sidecar(new))
    assert read_sidecar(path, REGION) == new
    other = Naive(b"abc", file_key=b"g" * 32).region()
    for data in (b"", sidecar(new)[:-1], sidecar(new) + b"x", new, sidecar(other), new + hashlib.sha256(b"").digest()):
        place.write_bytes(data)
        assert read_sidecar(path, REGION) is None
    place.unlink()
    real = tmp_path / "real"
    real.write_bytes(sidecar(new))
    place.symlink_to(real)
    assert read_sidecar(path, REGION) is None
    place.unlink()
    os.mkfifo(place)
    assert read_sidecar(path, REGION) is None
    place.unlink()
    place.mkdir()
    assert read_sidecar(path, REGION) is None


def test_no_descriptor_leaks(tmp_path: Path) -> None:
    path = tmp_path / "a"
    sidecar_path(path).write_bytes(b"x" * opening.SIDECAR_BYTES)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        read_sidecar(path, REGION)
    assert len(os.listdir("/proc/self/fd")) == before

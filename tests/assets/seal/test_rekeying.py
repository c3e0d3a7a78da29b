"""A file sealed anew in its place: the same content under another key, and no moment at which there is none."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from assess.assess_harness import Counting, Failing, Killing, in_fork
from assets.seal.headers_on_disk import names, sidecar, whole
from vambrace.assets.seal import origin, statement
from vambrace.assets.seal.header import HEADER_BYTES
from vambrace.assets.seal.opening import open_header
from vambrace.assets.seal.recipients import as_identity, as_recipient
from vambrace.assets.seal.rekeying import Rekeyed, rekey
from vambrace.assets.seal.rewrapping import rewrap
from vambrace.assets.seal.sealed import Sealed
from vambrace.assets.seal.suites import Suite
from vambrace.assets.seal.trailer import FOOT_BYTES
from vambrace.assets.seal.writer import Writer
from vambrace.core import files
from vambrace.errors import ArtifactRefused, ConfigError, ResourceError

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(32, 64)))
SIGNER, STRANGER = origin.public_bytes(KEY), origin.public_bytes(OTHER)
A, B = bytes([1]) * 32, bytes([2]) * 32
CONTENT = os.urandom(150_000)


def seal(path: Path, **options: Any) -> Path:
    given = {"content": "tensors", "size": len(CONTENT), "chunk_size": 65_536, "public": {"p": 1}, "metadata": {"m": 2}}
    with Writer(path, [as_recipient(A)], **(given | options)) as writer:
        writer.write(CONTENT)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net.sealed"


def content(path: Path, identity: bytes, **options: Any) -> bytes:
    with Sealed.open(path, [as_identity(identity)], **options) as sealed:
        return sealed.read(0, sealed.size)


def test_the_same_under_another_key(path: Path) -> None:
    seal(path)
    before = path.read_bytes()
    kept = open_header(before[:HEADER_BYTES], [as_identity(A)]).keys
    assert rekey(path, A, [B]) == Rekeyed(recipients=1, size=150_000, was_signed=False, signed=False)
    after = path.read_bytes()
    assert content(path, B) == CONTENT
    with pytest.raises(ArtifactRefused):
        content(path, A)
    with Sealed.open(path, [as_identity(B)]) as sealed:
        assert (sealed.description.content, sealed.description.metadata) == ("tensors", {"m": 2})
        assert (sealed.header.public, sealed.header.epoch) == ({"p": 1}, 0)
        fixed = sealed.header.fixed
    assert (fixed.chunk_size, fixed.suite) == (65_536, Suite.AES_256_GCM)
    # Nothing of the old ciphertext is in the new one, and who kept the old file key opens nothing with it.
    old = {before[at : at + 16] for at in range(HEADER_BYTES, len(before) - FOOT_BYTES - 16, 16)}
    assert not any(after[at : at + 16] in old for at in range(HEADER_BYTES, len(after) - FOOT_BYTES - 16))
    assert fixed.commitment != kept.commit
    assert names(path) == ["net.sealed"]


def test_a_change_of_recipients_is_not_enough(path: Path) -> None:
    """Negative control, and what the pages say: who kept the file key still reads the file after `rewrap`."""
    from vambrace.assets.seal.chunks import OVERHEAD, ChunkCipher

    seal(path)
    kept = open_header(path.read_bytes()[:HEADER_BYTES], [as_identity(A)])
    rewrap(path, A, [B])
    record = path.read_bytes()[HEADER_BYTES:][: 65_536 + OVERHEAD]
    plain = bytearray(65_536)
    ChunkCipher(kept.keys, kept.header.fixed).open(0, False, memoryview(record), memoryview(plain))
    assert plain == CONTENT[:65_536]


@pytest.mark.parametrize("pad", [False, True])
def test_padding_stays(path: Path, pad: bool) -> None:
    seal(path, pad=pad)
    size = path.stat().st_size
    rekey(path, A, A)
    assert path.stat().st_size == size
    assert content(path, A) == CONTENT
    rekey(path, A, A, pad=not pad)
    assert (path.stat().st_size > size) is not pad
    assert content(path, A) == CONTENT


def test_other_options(path: Path) -> None:
    seal(path, size=None)
    path.chmod(0o666)  # more than the umask leaves to new files
    rekey(path, A, [A], suite=Suite.CHACHA20_POLY1305, chunk_size=131_072, threads=2)
    with Sealed.open(path, [as_identity(A)]) as sealed:
        assert sealed.header.fixed.suite is Suite.CHACHA20_POLY1305
        assert sealed.header.fixed.chunk_size == 131_072
    assert content(path, A) == CONTENT
    assert path.stat().st_mode & 0o777 == 0o666
    path.chmod(0o600)
    rekey(path, A, [A])
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_empty_one(path: Path) -> None:
    with Writer(path, [as_recipient(A)]):
        pass
    assert rekey(path, A, [B]).size == 0
    assert content(path, B) == b""


# Signed ones.


def test_a_signature_is_not_lost_by_accident(path: Path) -> None:
    seal(path, sign=statement.hook(KEY))
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="E752"):
        rekey(path, A, [B])
    assert path.read_bytes() == before
    assert rekey(path, A, [A], unsigned=True) == Rekeyed(recipients=1, size=150_000, was_signed=True, signed=False)
    assert content(path, A) == CONTENT


def test_signed_anew(path: Path) -> None:
    seal(path, sign=statement.hook(KEY))
    assert rekey(path, A, [B], sign=OTHER, name="B. Smith", signer=SIGNER).signed
    assert content(path, B, signers={STRANGER}) == CONTENT
    with Sealed.open(path, [as_identity(B)]) as sealed:
        assert sealed.verify().name == "B. Smith"
    with pytest.raises(ArtifactRefused, match="E743"):
        rekey(path, B, [B], sign=KEY, signer=SIGNER)
    assert content(path, B, signers={STRANGER}) == CONTENT


def test_an_unsigned_one_signed(path: Path) -> None:
    seal(path)
    with pytest.raises(ArtifactRefused, match="E742"):
        rekey(path, A, [A], sign=KEY, signer=SIGNER)
    assert rekey(path, A, [A], sign=KEY) == Rekeyed(recipients=1, size=150_000, was_signed=False, signed=True)
    assert content(path, A, signers={SIGNER}) == CONTENT


def test_nobody_signs_what_was_changed_after_it_was_signed(path: Path) -> None:
    """Somebody with the file key has put another chunk in; its tag is right, its leaf is not."""
    from vambrace.assets.seal.chunks import OVERHEAD, ChunkCipher

    seal(path, sign=statement.hook(KEY))
    data = path.read_bytes()
    opened = open_header(data[:HEADER_BYTES], [as_identity(A)])
    record = bytearray(65_536 + OVERHEAD)
    ChunkCipher(opened.keys, opened.header.fixed).seal(0, False, [memoryview(bytes(65_536))], memoryview(record))
    data = data[:HEADER_BYTES] + record + data[HEADER_BYTES + len(record) :]
    path.write_bytes(data)
    for signer in (None, SIGNER):
        with pytest.raises(ArtifactRefused, match="E705: chunk 0 is not the one that was signed"):
            rekey(path, A, [A], sign=OTHER, signer=signer)
    assert path.read_bytes() == data
    assert names(path) == ["net.sealed"]


# What fails.


def test_what_is_damaged_stays_as_it_is(path: Path) -> None:
    seal(path)
    data = bytearray(path.read_bytes())
    data[-300] ^= 1  # in the last chunk
    path.write_bytes(data)
    with pytest.raises(ArtifactRefused, match="E705"):
        rekey(path, A, [B])
    assert path.read_bytes() == data
    assert names(path) == ["net.sealed"]


@pytest.mark.parametrize(
    "wrong", [{"recipients": []}, {"chunk_size": 5}, {"sign": "absent.key"}, {"name": "\x1b", "sign": KEY}]
)
def test_what_cannot_be(path: Path, wrong: dict[str, Any]) -> None:
    seal(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError):
        rekey(path, A, **({"recipients": [B]} | wrong))
    assert path.read_bytes() == before


def test_a_header_that_was_being_changed(path: Path) -> None:
    """What was begun is finished first; its sidecar would not fit the new file."""
    seal(path)
    old = path.read_bytes()
    rewrap(path, A, [B])
    new = path.read_bytes()[:HEADER_BYTES]
    path.write_bytes(old)
    sidecar(path).write_bytes(whole(new))
    rekey(path, A, [A])
    assert content(path, A) == CONTENT
    assert names(path) == ["net.sealed"]


def test_every_call_fails(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seal(path)
    with monkeypatch.context() as patch:
        patch.setattr(files, "system", counting := Counting())
        rekey(path, A, [A])
    assert counting.calls[-3:] == ["fsync", "replace net.sealed", "fsync"]
    for at in range(1, len(counting.calls) + 1):
        with monkeypatch.context() as patch:
            patch.setattr(files, "system", Failing(at))
            with pytest.raises(ResourceError, match="E601"):
                rekey(path, A, [A])
        assert content(path, A) == CONTENT
        assert names(path) == ["net.sealed"]


def test_killed_at_every_call(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seal(path)
    for at in range(1, 8):

        def work(at: int = at) -> None:
            monkeypatch.setattr(files, "system", Killing(at))
            rekey(path, A, [A])

        assert in_fork(work) == -signal.SIGKILL
        assert content(path, A) == CONTENT


def test_one_at_a_time(path: Path) -> None:
    from vambrace.assets.seal.holding import alone

    seal(path)
    with alone(path), pytest.raises(ResourceError, match="E600"):
        rekey(path, A, [A])


def test_a_signer_s_name_needs_a_key(path: Path) -> None:
    """It was dropped without a word."""
    seal(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="E712: a signer's name or role and no key"):
        rekey(path, A, [A], unsigned=True, name="me")
    assert path.read_bytes() == before

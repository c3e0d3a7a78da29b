"""What is proven of a file: by its signature, by opening it, by neither; and the attacks that each of them stops."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from assets.seal.harness import root_of
from assets.seal.headers_on_disk import sidecar, whole
from vambrace.assets.seal import folders, keys, merkle, origin, signing, statement, verifying
from vambrace.assets.seal.chunks import OVERHEAD
from vambrace.assets.seal.header import FIXED_BYTES, HEADER_BYTES, parse
from vambrace.assets.seal.opening import open_header
from vambrace.assets.seal.recipients import as_identity, as_recipient
from vambrace.assets.seal.rewrapping import rewrap
from vambrace.assets.seal.trailer import FOOT_BYTES, Foot, TrailerMac
from vambrace.assets.seal.verifying import verify
from vambrace.assets.seal.writer import Writer
from vambrace.errors import ArtifactRefused, ConfigError

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(32, 64)))
SIGNER, STRANGER = origin.public_bytes(KEY), origin.public_bytes(OTHER)
A, B = bytes([1]) * 32, bytes([2]) * 32
CHUNK = 65_536
CONTENT = os.urandom(2 * CHUNK + 100)


def seal(path: Path, *, by: Ed25519PrivateKey | None = KEY, content: bytes = CONTENT, to: Any = (A,)) -> Path:
    hook = statement.hook(by, name="A. Smith", role="release", date="2026-04-02T18:15:30Z") if by else None
    recipients = [as_recipient(each) for each in to]
    with Writer(path, recipients, size=len(content), chunk_size=CHUNK, sign=hook, public={"name": "net"}) as writer:
        writer.write(content)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return seal(tmp_path / "net.sealed")


# A sealed file, not opened.


def test_by_the_signature_alone(path: Path) -> None:
    found = verify(path, SIGNER)
    assert found.kind == "sealed"
    assert found.proven
    (by,) = found.signatures
    assert (by.signer, by.name, by.role, by.known) == (SIGNER, "A. Smith", "release", True)
    assert "A. Smith, release, 2026-04-02T18:15:30Z" in found.verdict
    assert found.verdict.startswith("intact, signed by ")
    assert "recipients" in found.unchecked
    assert "every chunk as it was signed" in found.checked


def test_several_signers_are_accepted(path: Path) -> None:
    assert verify(path, [STRANGER, SIGNER]).proven
    assert verify(path, KEY.public_key()).proven


@pytest.mark.parametrize("accepted", [STRANGER, [STRANGER], None], ids=["one", "several", "none"])
def test_by_an_unknown_key(path: Path, accepted: Any) -> None:
    with pytest.raises(ArtifactRefused, match="E743") as caught:
        verify(path, accepted)
    assert origin.encoded(SIGNER) in caught.value.seen
    assert caught.value.exit_code == 3


def test_not_signed(tmp_path: Path) -> None:
    path = seal(tmp_path / "plain.sealed", by=None)
    for accepted in (SIGNER, [SIGNER, STRANGER]):
        with pytest.raises(ArtifactRefused, match="E742"):
            verify(path, accepted)
    with pytest.raises(ArtifactRefused, match="E753"):
        verify(path)


def test_every_byte_that_it_vouches_for(path: Path) -> None:
    """All of the file but the recipients and the HMACs, which only who opens it can check."""
    data = path.read_bytes()
    size = len(data)
    free = {*range(HEADER_BYTES - 32, HEADER_BYTES), *range(size - 32, size)}
    text_end = 116 + int.from_bytes(data[112:116], "little")
    recipients = data.index(b'"recipients"')
    free |= {*range(recipients, text_end)}  # may be refused where it is no JSON any more, but need not
    free |= {data.index(b'"epoch":') + 8}
    places = [*range(0, 120, 3), *range(120, recipients, 31), text_end, 40_000, HEADER_BYTES - 33]
    places += [HEADER_BYTES, HEADER_BYTES + 3, HEADER_BYTES + 4, HEADER_BYTES + CHUNK, HEADER_BYTES + CHUNK + OVERHEAD]
    places += [*range(size - FOOT_BYTES - 400, size - 32, 5)]
    passed: list[int] = []
    for at in places:
        if at in free:
            continue
        changed = bytearray(data)
        changed[at] ^= 1
        path.write_bytes(changed)
        try:
            verify(path, SIGNER)
        except ArtifactRefused:
            continue
        passed.append(at)
    assert passed == []
    for at in (HEADER_BYTES - 32, size - 32):  # these are named as unchecked
        changed = bytearray(data)
        changed[at] ^= 1
        path.write_bytes(changed)
        assert verify(path, SIGNER).proven
        with pytest.raises(ArtifactRefused):
            verify(path, SIGNER, A)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_changed_chunk_is_named(path: Path, index: int) -> None:
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES + index * (CHUNK + OVERHEAD) + 50] ^= 1
    path.write_bytes(data)
    for identity in (None, A):
        with pytest.raises(ArtifactRefused, match=f"E705: chunk {index} "):
            verify(path, SIGNER, identity)


def test_chunks_swapped(path: Path) -> None:
    data = path.read_bytes()
    one, two = (data[HEADER_BYTES + at * (CHUNK + OVERHEAD) :][: CHUNK + OVERHEAD] for at in (0, 1))
    rest = data[HEADER_BYTES + 2 * (CHUNK + OVERHEAD) :]
    path.write_bytes(data[:HEADER_BYTES] + two + one + rest)
    for identity in (None, A):
        with pytest.raises(ArtifactRefused, match="E705"):
            verify(path, SIGNER, identity)
    leaves = bytearray(rest[100 + OVERHEAD :])  # and their leaves too: then the root is another
    leaves[:32], leaves[32:64] = leaves[32:64], leaves[:32]
    path.write_bytes(data[:HEADER_BYTES] + two + one + rest[: 100 + OVERHEAD] + leaves)
    with pytest.raises(ArtifactRefused, match="E741"):
        verify(path, SIGNER)


def test_one_byte_more_or_less(path: Path) -> None:
    data = path.read_bytes()
    for changed in (
        data[:-1],
        data + b"\0",
        data[:HEADER_BYTES],
        data[: HEADER_BYTES - 1],
        data[:9],
        data[:-FOOT_BYTES],
    ):
        path.write_bytes(changed)
        with pytest.raises(ArtifactRefused, match="E70"):
            verify(path, SIGNER)


def test_bytes_put_in_between(path: Path) -> None:
    data = path.read_bytes()
    leaves, said = parts(data)
    end = len(data) - FOOT_BYTES
    for at in (HEADER_BYTES, end - len(said) - len(leaves), end - len(said), end):
        path.write_bytes(data[:at] + bytes(5) + data[at:])
        with pytest.raises(ArtifactRefused, match="E707"):
            verify(path, SIGNER)


def test_a_frame_that_tells_another_size(path: Path) -> None:
    """Only its signer could make such a file; it is refused all the same, because nobody can read it."""
    data = bytearray(path.read_bytes())
    leaves, _ = parts(data)
    data[HEADER_BYTES] ^= 1
    leaves = merkle.leaf(data[HEADER_BYTES:][: CHUNK + OVERHEAD]) + leaves[32:]
    foot, fixed = foot_of(data), parse(data[:HEADER_BYTES]).fixed
    said = statement.make(KEY, fixed, foot.chunks, foot.stream, root_of(leaves), "", "", "2026-04-02T18:15:30Z")
    path.write_bytes(with_trailer(bytes(data), leaves, said))
    with pytest.raises(ArtifactRefused, match="E705: chunk 0 has another frame"):
        verify(path, SIGNER)


def test_a_link_and_an_interrupted_change(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    assert verify(tmp_path / "link", SIGNER).proven
    data = path.read_bytes()
    sidecar(path).write_bytes(whole(data[:HEADER_BYTES]))
    path.write_bytes(data[:FIXED_BYTES] + bytes(30_000) + data[FIXED_BYTES + 30_000 :])
    assert verify(tmp_path / "link", SIGNER).proven
    assert verify(path, SIGNER, A).proven


def test_a_change_that_ends_while_it_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The header is met half written, and by the time of the look beside it the sidecar is gone."""
    data = path.read_bytes()
    path.write_bytes(data[:FIXED_BYTES] + bytes(30_000) + data[FIXED_BYTES + 30_000 :])

    def gone(place: Path, region: bytes) -> None:
        assert region != data[:HEADER_BYTES]
        place.write_bytes(data)

    monkeypatch.setattr(verifying, "read_sidecar", gone)
    assert verify(path, SIGNER).proven


def test_it_survives_a_change_of_recipients(path: Path) -> None:
    rewrap(path, A, [B])
    assert verify(path, SIGNER).proven
    assert verify(path, SIGNER, B).proven


# Opened.


def test_opened(path: Path) -> None:
    found = verify(path, SIGNER, A)
    assert found.proven
    assert found.unchecked == ()
    # Everybody can sign: that it opens does not make the key of its signature known.
    with pytest.raises(ArtifactRefused, match="E743.*a key that was not accepted"):
        verify(path, identity=A)


def test_opened_and_not_signed(tmp_path: Path) -> None:
    path = seal(tmp_path / "plain.sealed", by=None)
    found = verify(path, identity=A)
    assert found.verdict == "intact, origin not proven"
    assert found.signatures == ()
    assert not found.proven
    assert "who made it" in found.unchecked
    with pytest.raises(ArtifactRefused, match="E742"):
        verify(path, SIGNER, A)


def test_who_does_not_open_it(path: Path) -> None:
    with pytest.raises(ArtifactRefused):
        verify(path, SIGNER, B)
    with pytest.raises(ConfigError, match="E724"):
        verify(path, SIGNER, "absent.key")


# Attacks by somebody who can seal to the same recipient, or who is one and so knows the file key.


def foot_of(data: bytes) -> Foot:
    foot = Foot.parse(data[-FOOT_BYTES:])
    assert foot
    return foot


def with_trailer(data: bytes, leaves: bytes, said: bytes, identity: bytes = A) -> bytes:
    """The same chunks behind another trailer, its HMAC by a recipient, who has the key for it."""
    opened = open_header(data[:HEADER_BYTES], [as_identity(identity)])
    foot = dataclasses.replace(foot_of(data), leaves=len(leaves), statement=len(said))
    mac = TrailerMac(opened.keys, opened.header.fixed.binding)
    mac.update(leaves)
    mac.update(said)
    foot = dataclasses.replace(foot, mac=mac.finish(foot))
    return data[: foot.layout(CHUNK).end] + leaves + said + foot.pack()


def parts(data: bytes) -> tuple[bytes, bytes]:
    foot = foot_of(data)
    end = foot.layout(CHUNK).end
    return data[end : end + foot.leaves], data[end + foot.leaves : -FOOT_BYTES]


def refused(path: Path, code: str) -> None:
    """Both ways of verifying refuse it when a signer is set."""
    for identity in (None, A):
        with pytest.raises(ArtifactRefused, match=code):
            verify(path, SIGNER, identity)


def test_sealed_again_by_an_attacker(path: Path) -> None:
    seal(path, by=None, content=b"a model with a trapdoor")
    assert verify(path, identity=A).verdict == "intact, origin not proven"
    refused(path, "E742")
    seal(path, by=OTHER, content=b"a model with a trapdoor")
    with pytest.raises(ArtifactRefused, match="E743"):
        verify(path, identity=A)
    refused(path, "E743")


def test_the_same_content_sealed_again(path: Path) -> None:
    """The signature is for the ciphertext: it does not fit another one of the same content."""
    leaves, said = parts(path.read_bytes())
    seal(path, by=OTHER)
    path.write_bytes(with_trailer(path.read_bytes(), leaves, said))
    refused(path, "E705|E741")
    own, _ = parts(seal(path, by=OTHER).read_bytes())
    path.write_bytes(with_trailer(path.read_bytes(), own, said))
    refused(path, "E741")


def test_the_signature_stripped(path: Path) -> None:
    path.write_bytes(with_trailer(path.read_bytes(), b"", b""))
    assert verify(path, identity=A).signatures == ()
    refused(path, "E742")


def test_signed_by_a_recipient_in_place_of_the_maker(path: Path) -> None:
    data = path.read_bytes()
    leaves, _ = parts(data)
    foot, fixed = foot_of(data), parse(data[:HEADER_BYTES]).fixed
    said = statement.make(
        OTHER, fixed, foot.chunks, foot.stream, root_of(leaves), "A. Smith", "release", "2026-04-02T18:15:30Z"
    )
    path.write_bytes(with_trailer(data, leaves, said))
    refused(path, "E743")


def test_a_statement_with_another_name(path: Path) -> None:
    leaves, said = parts(path.read_bytes())
    path.write_bytes(with_trailer(path.read_bytes(), leaves, said.replace(b"A. Smith", b"B. Smith")))
    refused(path, "E741")
    path.write_bytes(
        with_trailer(
            path.read_bytes(), leaves, said.replace(origin.encoded(SIGNER).encode(), origin.encoded(STRANGER).encode())
        )
    )
    refused(path, "E741|E743")


def test_a_chunk_by_a_recipient_with_its_leaf(path: Path) -> None:
    """A recipient can encrypt another chunk in this file; the root is then not the one that was signed."""
    from vambrace.assets.seal.chunks import ChunkCipher

    data = path.read_bytes()
    opened = open_header(data[:HEADER_BYTES], [as_identity(A)])
    record = bytearray(CHUNK + OVERHEAD)
    ChunkCipher(opened.keys, opened.header.fixed).seal(1, False, [memoryview(bytes(CHUNK))], memoryview(record))
    leaves, said = parts(data)
    at = HEADER_BYTES + CHUNK + OVERHEAD
    data = data[:at] + record + data[at + CHUNK + OVERHEAD :]
    path.write_bytes(data)
    refused(path, "E705: chunk 1 is not the one that was signed")
    path.write_bytes(with_trailer(data, leaves[:32] + merkle.leaf(record) + leaves[64:], said))
    refused(path, "E741")


def test_a_leaf_of_another_file(path: Path, tmp_path: Path) -> None:
    leaves, said = parts(path.read_bytes())
    others, _ = parts(seal(tmp_path / "other.sealed").read_bytes())
    path.write_bytes(with_trailer(path.read_bytes(), others[:32] + leaves[32:], said))
    refused(path, "E705|E741")


def test_the_descriptions_are_vouched_for(path: Path) -> None:
    """They are in the binding: another public text beside the same signature is refused without opening."""
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"name":"net"', b'"name":"nut"', 1))
    with pytest.raises(ArtifactRefused, match="E702"):
        verify(path, SIGNER)


# Anything else.


def test_a_file_by_the_signature_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"weights")
    for accepted in (SIGNER, None):
        with pytest.raises(ArtifactRefused, match="E742"):
            verify(path, accepted)
    signing.sign(path, OTHER, name="stranger")
    signing.sign(path, KEY, name="A. Smith")
    found = verify(path, SIGNER)
    assert [(each.name, each.known) for each in found.signatures] == [("stranger", False), ("A. Smith", True)]
    assert (found.kind, found.proven, found.unchecked) == ("file", True, ())
    assert "stranger" not in found.verdict
    third = Ed25519PrivateKey.generate().public_key()
    for accepted in (third, None):
        with pytest.raises(ArtifactRefused, match="E743.*stranger.*A. Smith"):
            verify(path, accepted)
    path.write_bytes(b"Weights")
    with pytest.raises(ArtifactRefused, match="E745"):
        verify(path, SIGNER)


def test_a_folder_by_the_signature_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "results.json").write_bytes(b"{}")
    signing.sign(folder, KEY, to=tmp_path / "signed")
    assert verify(folder, SIGNER, at=tmp_path / "signed").kind == "folder"
    shutil.move(tmp_path / "signed", tmp_path / "run.sig")
    assert verify(folder, SIGNER).proven
    (folder / "more").write_bytes(b"")
    with pytest.raises(ArtifactRefused, match="E745.*added: more"):
        verify(folder, SIGNER)


def test_a_signature_by_somebody_else_under_the_same_name(tmp_path: Path) -> None:
    """An attacker changes the file, signs it, and calls themselves what the maker is called."""
    path = tmp_path / "net.onnx"
    path.write_bytes(b"a trapdoor")
    signing.sign(path, OTHER, name="A. Smith", role="release")
    with pytest.raises(ArtifactRefused, match="E743"):
        verify(path, SIGNER)


def test_an_identity_is_for_sealed_files(tmp_path: Path) -> None:
    """Who expects a sealed file is not satisfied by another one that is signed."""
    path = tmp_path / "net.sealed"
    path.write_bytes(b"weights")
    signing.sign(path, KEY)
    with pytest.raises(ArtifactRefused, match="E700"):
        verify(path, SIGNER, A)


def test_signatures_elsewhere_are_not_for_sealed_files(path: Path, tmp_path: Path) -> None:
    """They were not looked at, and nobody said so."""
    for identity in (None, A):
        with pytest.raises(ConfigError, match="E749.*for a sealed file"):
            verify(path, SIGNER, identity, at=tmp_path / "elsewhere.sig")


def test_what_is_no_signer(path: Path, tmp_path: Path) -> None:
    for accepted in ([], "absent.pub", bytes(32), keys.generate("x25519").public()):
        with pytest.raises(ConfigError, match="E748"):
            verify(path, accepted)
    with pytest.raises(ConfigError, match="E749"):
        verify(tmp_path / "absent", SIGNER)


def test_opened_and_with_lists_that_are_none(tmp_path: Path) -> None:
    """It was called intact, and every reader refused it."""
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        (tmp_path / "in" / name).write_bytes(b"content")
    gathered = folders.gather(tmp_path / "in")
    plain = bytearray(b"".join(gathered.pieces()))
    path = tmp_path / "sealed"

    def write(content: bytes, kind: Any) -> None:
        with Writer(path, [as_recipient(A)], content=kind, size=len(content), chunk_size=CHUNK) as writer:
            writer.write(content)

    write(bytes(plain), "folder")
    assert "list of files" in verify(path, identity=A).checked
    gap = gathered.members[1].begin - 1
    assert gathered.members[1].gap
    plain[gap] = 1
    write(bytes(plain), "folder")
    with pytest.raises(ArtifactRefused, match="E765"):
        verify(path, identity=A)
    write(b"garbage", "tensors")  # this one opens as the file that it is
    assert verify(path, identity=A).unchecked == ("who made it", "its list of tensors (a content of 7 bytes)")

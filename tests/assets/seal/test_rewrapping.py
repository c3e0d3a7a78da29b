"""Recipients changed in place: who can open it afterwards, and who is told what where that cannot be."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from assets.seal.headers_on_disk import BODY, names, opens, put, region, sidecar, torn, whole
from vambrace.assets import seal
from vambrace.assets.seal import keys
from vambrace.assets.seal.header import FIXED_BYTES, HEADER_BYTES, build, parse
from vambrace.assets.seal.holding import alone
from vambrace.assets.seal.kms import Kms, Local
from vambrace.assets.seal.opening import open_header, pending
from vambrace.assets.seal.passphrase import Argon2id, Passphrase
from vambrace.assets.seal.recipients import Key, PublicKey, as_identity
from vambrace.assets.seal.rewrapping import Rewrapped, finish, rewrap
from vambrace.core import files
from vambrace.errors import ArtifactRefused, ConfigError, ResourceError

CHEAP = Argon2id(memory_kib=8192, passes=1, lanes=1)
A, B, C = (bytes([number]) * 32 for number in (1, 2, 3))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net.sealed"


def header(path: Path) -> Any:
    return parse(path.read_bytes()[:HEADER_BYTES])


def test_all_are_replaced(path: Path) -> None:
    before = put(path, A, B)
    assert rewrap(path, A, [C]) == Rewrapped(epoch=1, recipients=1, added=1, removed=2, finished=False)
    assert [opens(path, each) for each in (A, B, C)] == [False, False, True]
    after = path.read_bytes()
    assert (len(after), after[HEADER_BYTES:], names(path)) == (HEADER_BYTES + len(BODY), BODY, ["net.sealed"])
    assert after[:FIXED_BYTES] == before[:FIXED_BYTES]
    assert header(path).private == parse(before).private
    assert header(path).public == {"name": "net"}


def test_some_come_and_go(path: Path) -> None:
    put(path, A, B)
    assert rewrap(path, A, add=C).epoch == 1
    assert [opens(path, each) for each in (A, B, C)] == [True, True, True]
    assert rewrap(path, B, remove=1) == Rewrapped(epoch=2, recipients=2, added=0, removed=1, finished=False)
    assert [opens(path, each) for each in (A, B, C)] == [False, True, True]
    assert rewrap(path, B, add=[A], remove=[B, 2]).epoch == 3
    assert [opens(path, each) for each in (A, B, C)] == [True, False, False]


def test_stanzas_that_stay_are_not_touched(path: Path) -> None:
    before = parse(put(path, A, B)).recipients
    rewrap(path, A, add=[C])
    assert header(path).recipients[:2] == before


def test_a_recipient_of_a_later_release_stays(path: Path) -> None:
    data = put(path, A)
    opened = open_header(data, [as_identity(A)])
    future = {"type": "future", "wrapped": "anything", "more": {"a": [1, None]}}
    path.write_bytes(region(A, keys=opened.keys, salt=opened.header.fixed.salt) + BODY)
    import dataclasses

    from vambrace.assets.seal import header as headers

    changed = dataclasses.replace(header(path), recipients=[*header(path).recipients, future])
    path.write_bytes(headers.build(changed, opened.keys) + BODY)
    rewrap(path, A, add=[B])
    assert header(path).recipients[1] == future
    assert opens(path, B)


@pytest.mark.parametrize("kind", ["x25519", "mlkem768-x25519"])
def test_recipients_of_every_kind(path: Path, tmp_path: Path, kind: Any) -> None:
    secret = keys.generate(kind)
    keys.write(tmp_path / "open.key", secret)
    keys.write(tmp_path / "open.pub", secret.public())
    put(path, A)
    weak = Passphrase("correct horse", kdf=CHEAP)
    rewrap(path, A, [tmp_path / "open.pub", weak])
    assert opens(path, tmp_path / "open.key")
    assert opens(path, Passphrase("correct horse"))
    assert not opens(path, A)
    rewrap(path, [A, tmp_path / "open.key"], add=[A], remove=[tmp_path / "open.pub"])  # the second identity opens it
    assert [opens(path, each) for each in (A, tmp_path / "open.key")] == [True, False]


def test_ways_to_name_who_goes(path: Path, tmp_path: Path) -> None:
    secret = keys.generate("x25519")
    public = secret.public()
    keys.write(tmp_path / "open.pub", public)
    ways = [
        2,
        public.id,
        public,
        secret,
        public.text(),
        tmp_path / "open.pub",
        str(tmp_path / "open.pub"),
        PublicKey(public),
    ]
    for way in ways:
        put(path, A, public)
        assert rewrap(path, A, remove=way).recipients == 1
        assert not opens(path, as_identity(secret))
    put(path, A, B)
    rewrap(path, A, remove=Key(B))
    assert not opens(path, B)


@pytest.mark.parametrize(
    ("changed", "seen"),
    [
        ({"recipients": []}, "0 recipients"),
        ({"remove": [1, 2]}, "0 recipients"),
        ({"add": [bytes([number]) * 32 for number in range(10, 73)]}, "65 recipients"),
        ({"recipients": [C], "add": [B]}, "replaced, and some added"),
        ({"recipients": [C], "remove": [1]}, "replaced, and some added"),
        ({}, "nothing to change"),
        ({"remove": [3]}, "not among the recipients"),
        ({"remove": [0]}, "not among the recipients"),
        ({"remove": [-1]}, "not among the recipients"),
        ({"remove": [True]}, "a bool to remove"),
        ({"remove": [C]}, "not among the recipients"),
        ({"remove": ["0" * 16]}, "not among the recipients"),
        ({"remove": ["absent.key"]}, "no key file"),
        ({"remove": [1.5]}, "a float to remove"),
        ({"recipients": [Passphrase(str(number + 1), kdf=CHEAP) for number in range(5)]}, "5 passphrase recipients"),
    ],
)
def test_what_cannot_be(path: Path, changed: dict[str, Any], seen: str) -> None:
    before = put(path, A, B)
    with pytest.raises(ConfigError, match="E751") as caught:
        rewrap(path, A, **changed)
    assert seen in caught.value.seen
    assert path.read_bytes() == before + BODY
    assert names(path) == ["net.sealed"]


def test_who_is_there_is_not_added_again(path: Path) -> None:
    """One of the two stayed when the other was removed by its number."""
    key, other = keys.generate("x25519"), keys.generate("x25519")
    put(path, A)
    first = rewrap(path, A, add=[key.public(), key.public()])
    assert (first.recipients, first.added) == (2, 1)
    same = rewrap(path, A, add=[key.public()])
    assert (same.recipients, same.added, same.removed) == (2, 0, 0)
    again = rewrap(path, A, add=[key.public(), other.public()])
    assert (again.recipients, again.added) == (3, 1)
    assert rewrap(path, A, [key.public(), key.public()]).recipients == 1


def test_who_is_named_twice_is_there_once(tmp_path: Path) -> None:
    key, other = keys.generate("x25519"), keys.generate("mlkem768-x25519")
    fake, one = Kms(Local(A, key="one")), Kms(Local(A, key="one"))
    to = [key.public(), other.public(), key.public(), A, A, fake, Kms(Local(A, key="two")), one]
    seal.save({}, tmp_path / "sealed", recipients=to)
    found = parse((tmp_path / "sealed").read_bytes()[:HEADER_BYTES]).recipients
    assert [stanza["type"] for stanza in found] == ["x25519", "mlkem768-x25519", "key", "kms", "kms"]
    assert rewrap(tmp_path / "sealed", A, add=[fake]).recipients == 5


def test_an_id_that_a_recipient_has_written_keeps_nobody_out(path: Path) -> None:
    """Their stanza bore the id of somebody else, who was "there already" when they were to be added."""
    mallory, bob = keys.generate("x25519"), keys.generate("x25519")
    put(path, A, mallory.public())
    region = path.read_bytes()[:HEADER_BYTES]
    opened = open_header(region, [as_identity(mallory)])
    stanzas = [{**each, "id": bob.id} if each.get("id") == mallory.id else each for each in opened.header.recipients]
    false = build(dataclasses.replace(opened.header, recipients=stanzas), opened.keys)
    path.write_bytes(false + BODY)
    done = rewrap(path, A, add=[bob.public()])
    assert opens(path, bob)
    assert (done.recipients, done.added) == (2, 0)
    assert not opens(path, mallory)


def test_an_anonymous_recipient_goes_by_number_only(path: Path) -> None:
    put(path, A, Key(B, anonymous=True))
    with pytest.raises(ConfigError, match="E751.*without an id"):
        rewrap(path, A, remove=[B])
    rewrap(path, A, remove=[2])
    assert not opens(path, B)


def test_more_than_fits(path: Path) -> None:
    before = put(path, A)
    many = [keys.generate("mlkem768-x25519").public() for _ in range(60)]
    with pytest.raises(ConfigError, match="E714"):
        rewrap(path, A, add=many)
    assert path.read_bytes() == before + BODY


def test_a_name_that_leaves_no_room_for_a_sidecar(path: Path) -> None:
    """An OSError of Python came out."""
    long = path.with_name("n" * 250)
    before = put(long, A)
    with pytest.raises(ResourceError, match="E604: ENAMETOOLONG"):
        rewrap(long, A, add=B)
    assert long.read_bytes()[:HEADER_BYTES] == before


@pytest.mark.parametrize("name", ["n" * 247, "ü" * 123])
def test_a_name_that_leaves_no_room_for_a_draft_of_the_sidecar(path: Path, name: str) -> None:
    long = path.with_name(name)
    put(long, A)
    stem = files.draft_name(f".{name}.header")
    assert len(stem.encode()) in {229, 230}
    left = path.with_name(f".{stem}.4194304.0123abcd.tmp")
    left.write_bytes(b"of a process that was killed")
    rewrap(long, A, add=B)
    assert opens(long, A)
    assert opens(long, B)
    assert [each.name for each in path.parent.iterdir() if each.suffix == ".tmp"] == []


def test_who_cannot_open_it_changes_nothing(path: Path) -> None:
    before = put(path, A)
    with pytest.raises(ArtifactRefused):
        rewrap(path, B, [B])
    assert path.read_bytes() == before + BODY
    with pytest.raises(ConfigError, match="E724"):
        rewrap(path, "no such key", [B])
    with pytest.raises(ConfigError, match="E749"):
        rewrap(path.with_name("absent"), A, [B])
    with pytest.raises(ConfigError, match="E749"):
        rewrap(path.parent, A, [B])
    path.write_bytes(b"something else")
    with pytest.raises(ArtifactRefused, match="E700"):
        rewrap(path, A, [B])


@pytest.mark.parametrize("at", [0, 50, 100, 113, 500, 40_000, 65_535])
def test_a_damaged_header_is_not_built_upon(path: Path, at: int) -> None:
    data = bytearray(put(path, A) + BODY)
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactRefused):
        rewrap(path, A, [B])
    assert path.read_bytes() == data


def test_an_expired_file_can_be_changed(path: Path) -> None:
    from vambrace.assets.seal.recipients import as_recipient
    from vambrace.assets.seal.writer import Writer

    with Writer(path, [as_recipient(A)], public={"expires": "2001-01-01T00:00:00Z"}) as writer:
        writer.write(b"content")
    assert rewrap(path, A, [B]).epoch == 1


def test_one_at_a_time(path: Path) -> None:
    put(path, A)
    with alone(path), pytest.raises(ResourceError, match="E600"):
        rewrap(path, A, [B])
    rewrap(path, A, [B])


def test_through_a_link(path: Path) -> None:
    put(path, A)
    folder = path.parent / "links"
    folder.mkdir()
    (folder / "link").symlink_to(path)
    new = region(B)
    (folder / ".link.header").write_bytes(whole(new))  # beside the link there is nothing of this file
    rewrap(folder / "link", A, [B])
    assert opens(path, B)
    assert (folder / "link").is_symlink()
    assert (folder / ".link.header").read_bytes() == whole(new)


def test_permissions_stay(path: Path) -> None:
    put(path, A)
    path.chmod(0o640)
    rewrap(path, A, [B])
    assert path.stat().st_mode & 0o777 == 0o640


def test_no_secret_is_shown(path: Path) -> None:
    put(path, A)
    said = repr(rewrap(path, A, [B]))
    with pytest.raises(ConfigError) as caught:
        rewrap(path, B, remove=[A])
    for text in (said, str(caught.value), json.dumps(caught.value.as_json())):
        assert "\\x01" not in text
        assert A.hex() not in text


# What a crash has left beside the file.


def changed(path: Path, *recipients: object, epoch: int = 1) -> tuple[bytes, bytes]:
    """The file's header, and another of the same file for other recipients."""
    old = path.read_bytes()[:HEADER_BYTES]
    opened = open_header(old, [as_identity(A)])
    return old, region(*recipients, epoch=epoch, keys=opened.keys, salt=opened.header.fixed.salt)


def test_a_change_that_was_not_begun_is_finished(path: Path) -> None:
    put(path, A)
    _, new = changed(path, B)
    sidecar(path).write_bytes(whole(new))
    assert [opens(path, each) for each in (A, B)] == [True, True]
    assert finish(path, A) is True  # the old recipient
    assert path.read_bytes() == new + BODY
    assert names(path) == ["net.sealed"]
    assert finish(path, B) is False


@pytest.mark.parametrize("identity", [A, B], ids=["old", "new"])
def test_a_change_that_was_half_done_is_finished(path: Path, identity: bytes) -> None:
    put(path, A)
    old, new = changed(path, B)
    path.write_bytes(torn(old, new) + BODY)
    sidecar(path).write_bytes(whole(new))
    assert [opens(path, each) for each in (A, B)] == [False, True]
    if identity == A:
        before = path.read_bytes()
        with pytest.raises(ArtifactRefused):
            finish(path, identity)
        assert path.read_bytes() == before
        assert sidecar(path).read_bytes() == whole(new)
    assert rewrap(path, B, add=[C]) == Rewrapped(epoch=2, recipients=2, added=1, removed=0, finished=True)
    assert [opens(path, each) for each in (A, B, C)] == [False, True, True]
    assert names(path) == ["net.sealed"]


def test_a_change_that_was_done_is_tidied_up(path: Path) -> None:
    put(path, A)
    _, new = changed(path, B)
    path.write_bytes(new + BODY)
    sidecar(path).write_bytes(whole(new))
    assert finish(path, B) is True
    assert finish(path, B) is False
    assert names(path) == ["net.sealed"]
    assert path.read_bytes() == new + BODY


@pytest.mark.parametrize("cut", [0, 1, 112, 40_000, HEADER_BYTES, HEADER_BYTES + 31])
def test_half_a_sidecar_is_forgotten(path: Path, cut: int) -> None:
    put(path, A)
    old, new = changed(path, B)
    sidecar(path).write_bytes(whole(new)[:cut])
    assert rewrap(path, A, [C]).finished is False
    assert [opens(path, each) for each in (A, B, C)] == [False, False, True]
    path.write_bytes(torn(old, new) + BODY)  # and where it is needed, it is not believed
    sidecar(path).write_bytes(whole(new)[:cut])
    with pytest.raises(ArtifactRefused):
        rewrap(path, B, [C])
    assert sidecar(path).read_bytes() == whole(new)[:cut]


def test_an_older_header_is_not_brought_back(path: Path) -> None:
    """Who was removed puts the header that still had them beside the file."""
    put(path, A)
    old, new = changed(path, B)
    path.write_bytes(new + BODY)
    sidecar(path).write_bytes(whole(old))
    with pytest.raises(ArtifactRefused):
        rewrap(path, A, add=[A])
    assert path.read_bytes() == new + BODY
    assert rewrap(path, B, add=[C]).finished is False
    assert [opens(path, each) for each in (A, B, C)] == [False, True, True]


def forged(path: Path, recipient: bytes) -> bytes:
    """A header of the file for an attacker, who has no file key of it: right in all but the HMAC, and newer."""
    old = path.read_bytes()[:HEADER_BYTES]
    text = json.loads(old[116 : 116 + int.from_bytes(old[112:116], "little")])
    mine = parse(region(recipient)).recipients
    from vambrace.core import canonical

    written = canonical.dumps(text | {"epoch": 99, "recipients": mine})
    start = old[:FIXED_BYTES] + len(written).to_bytes(4, "little") + written
    return start.ljust(HEADER_BYTES - 32, b"\0") + bytes(32)


def test_a_forged_sidecar_is_not_followed(path: Path) -> None:
    before = put(path, A)
    false = forged(path, C)
    parse(false)  # well formed, its descriptions those of the file
    sidecar(path).write_bytes(whole(false))
    assert [opens(path, each) for each in (A, C)] == [True, False]
    with pytest.raises(ArtifactRefused):
        finish(path, C)
    assert path.read_bytes() == before + BODY
    assert finish(path, A) is True  # it is gone
    assert path.read_bytes() == before + BODY
    sidecar(path).write_bytes(whole(false))
    assert rewrap(path, A, add=[B]) == Rewrapped(epoch=1, recipients=2, added=1, removed=0, finished=False)
    assert [opens(path, each) for each in (A, B, C)] == [True, True, False]


def test_a_forged_sidecar_beside_a_torn_header(path: Path) -> None:
    put(path, A)
    old, new = changed(path, B)
    path.write_bytes(torn(old, new) + BODY)
    sidecar(path).write_bytes(whole(forged(path, A)))
    before = path.read_bytes()
    for identity in (A, B, C):
        with pytest.raises(ArtifactRefused):
            finish(path, identity)
    assert path.read_bytes() == before
    assert sidecar(path).exists()


def test_the_sidecar_of_another_file_is_kept(path: Path) -> None:
    """That one may have been renamed, with a torn header and no other whole one."""
    before = put(path, A)
    other = whole(region(A))
    sidecar(path).write_bytes(other)
    for call in (lambda: rewrap(path, A, [B]), lambda: finish(path, A)):
        with pytest.raises(ArtifactRefused, match="E750.*another sealed file"):
            call()
    assert path.read_bytes() == before + BODY
    assert sidecar(path).read_bytes() == other


def test_what_is_no_sidecar(path: Path, tmp_path: Path) -> None:
    put(path, A)
    target = tmp_path / "target"
    target.write_bytes(whole(changed(path, B)[1]))
    sidecar(path).symlink_to(target)
    with pytest.raises(ArtifactRefused, match="E750.*a link"):
        rewrap(path, A, [B])
    sidecar(path).unlink()
    sidecar(path).mkdir()
    with pytest.raises(ArtifactRefused, match="E750.*no file"):
        rewrap(path, A, [B])
    sidecar(path).rmdir()
    os.mkfifo(sidecar(path))
    with pytest.raises(ArtifactRefused, match="E750.*no file"):
        rewrap(path, A, [B])
    sidecar(path).unlink()
    rewrap(path, A, [B])


def test_leftovers_of_killed_writers_are_swept(path: Path) -> None:
    put(path, A)
    mine = path.with_name("..net.sealed.header.4711.0123abcd.tmp")
    others = path.with_name(".other.4711.0123abcd.tmp")
    for place in (mine, others):
        place.write_bytes(b"half")
    rewrap(path, A, [B])
    assert not mine.exists()
    assert others.exists()


def test_the_helpers_of_these_tests_tell_the_difference(path: Path) -> None:
    put(path, A)
    old, new = changed(path, B)
    assert hashlib.sha256(torn(old, new)).digest() not in {hashlib.sha256(each).digest() for each in (old, new)}
    path.write_bytes(torn(old, new) + BODY)
    assert [opens(path, each) for each in (A, B)] == [False, False]


@pytest.mark.parametrize("link", [False, True])
def test_what_replaces_a_file_whose_change_was_cut_off_is_rid_of_it(path: Path, link: bool) -> None:
    """Its sidecar stayed beside the new file, whose recipients nobody could change any more."""
    put(path, A)
    old, new = changed(path, B)
    path.write_bytes(torn(old, new) + BODY)
    sidecar(path).write_bytes(whole(new))
    assert pending(path) == sidecar(path)
    target = path.with_name("link") if link else path
    if link:
        target.symlink_to(path)
    seal.save({}, target, recipients=[A])
    assert sidecar(path).exists() is link, "of a link only the link is replaced"
    assert rewrap(target, A, [C]).finished is False
    assert seal.load(target, identity=C) == {}
    if link:
        assert opens(path, B)


def test_a_sidecar_of_another_file_is_left_where_it_is(path: Path, tmp_path: Path) -> None:
    put(path, A)
    other = tmp_path / "other"
    put(other, A)
    foreign = whole(changed(other, C)[1])
    sidecar(path).write_bytes(foreign)
    assert pending(path) is None
    seal.save({}, path, recipients=[A])
    assert sidecar(path).read_bytes() == foreign
    sidecar(path).write_bytes(foreign[:-1])
    assert pending(path) is None
    assert pending(tmp_path / "nothing") is None


def test_a_file_with_another_name_keeps_its_sidecar(path: Path) -> None:
    """A snapshot by hard links opened no more: its only whole header went with one of the names."""
    put(path, A)
    old, new = changed(path, B)
    path.write_bytes(torn(old, new) + BODY)
    sidecar(path).write_bytes(whole(new))
    os.link(path, other := path.with_name("other.sealed"))
    seal.save({}, path, recipients=[A])
    sidecar(other).write_bytes(sidecar(path).read_bytes())
    assert opens(other, B)


def test_a_change_that_is_being_made_keeps_its_sidecar(path: Path) -> None:
    """It was taken away beneath it, and the change ended with "no room"."""
    put(path, A)
    sidecar(path).write_bytes(whole(changed(path, B)[1]))
    with alone(path):
        seal.save({}, path, recipients=[A])
    assert sidecar(path).exists()

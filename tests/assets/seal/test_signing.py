"""Signing files and folders, several people after one another, and what is found when something has changed since."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from assess.assess_harness import Failing, Killing, in_fork
from vambrace.assets.seal import keys, origin, signature, signing
from vambrace.core import files
from vambrace.errors import ArtifactRefused, ConfigError, ResourceError

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(32, 64)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "run"
    (top / "evidence").mkdir(parents=True)
    for name in ("plan.json", "journal", "LOCK", "results.json", "evidence/a.safetensors"):
        (top / name).write_bytes(name.encode())
    return top


def test_a_file(file: Path) -> None:
    said = signing.sign(file, KEY, name="A. Smith", role="release", date="2026-04-02T18:15:30Z")
    assert sorted(entry.name for entry in file.parent.iterdir()) == ["net.onnx", "net.onnx.sig"]
    assert signing.check(file) == said
    (entry,) = said.entries
    assert (entry.signer, entry.name, entry.role, entry.date) == (
        origin.public_bytes(KEY), "A. Smith", "release", "2026-04-02T18:15:30Z",
    )  # fmt: skip
    assert file.read_bytes() == b"weights"


def test_several_sign_after_one_another(file: Path) -> None:
    signing.sign(file, KEY, name="A")
    first = signing.beside(file).read_bytes()
    signing.sign(file, OTHER, name="B", role="review")
    assert signing.beside(file).read_bytes().startswith(first)
    assert [each.name for each in signing.check(file).entries] == ["A", "B"]
    signing.beside(file).write_bytes(first)  # what the first signer signed stays good on its own
    assert [each.name for each in signing.check(file).entries] == ["A"]


def test_a_run_folder(folder: Path) -> None:
    signing.sign(folder, KEY)
    assert sorted(entry.name for entry in folder.parent.iterdir()) == ["run", "run.sig"]
    (folder / "LOCK").write_bytes(b'{"host":"here","pid":1,"since":"now"}')
    (folder / ".results.json.77.tmp").write_bytes(b"{")
    assert signing.check(folder).subject.kind == "folder"
    (folder / "results.json").write_bytes(b"{}")
    (folder / "evidence" / "b.safetensors").write_bytes(b"")
    (folder / "plan.json").unlink()
    with pytest.raises(ArtifactRefused, match="E745") as caught:
        signing.check(folder)
    assert "changed: results.json; added: LOCK, evidence/b.safetensors; removed: plan.json" in caught.value.seen
    assert caught.value.exit_code == 3


def test_a_changed_file(file: Path) -> None:
    signing.sign(file, KEY)
    file.write_bytes(b"Weights")
    with pytest.raises(ArtifactRefused, match="E745.*changed: its content"):
        signing.check(file)
    before = signing.beside(file).read_bytes()
    with pytest.raises(ArtifactRefused, match="E745"):
        signing.sign(file, OTHER)  # a signature never goes below those for something else
    assert signing.beside(file).read_bytes() == before


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    def late(*_: object) -> None:
        raise TimeoutError("sign waits for somebody to write into the pipe")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(10)
    try:
        with pytest.raises(ArtifactRefused, match="E747.*neither a file nor a folder"):
            signing.sign(tmp_path / "pipe", KEY)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert [each.name for each in tmp_path.iterdir()] == ["pipe"]


def test_the_signature_of_another_file(file: Path) -> None:
    other = file.with_name("other.onnx")
    other.write_bytes(b"other")
    signing.sign(other, KEY)
    signing.beside(other).rename(signing.beside(file))
    with pytest.raises(ArtifactRefused, match="E745"):
        signing.check(file)


def test_no_signature(file: Path) -> None:
    with pytest.raises(ArtifactRefused, match=r"E742.*net.onnx.sig"):
        signing.check(file)


def test_a_signature_that_does_not_hold_takes_no_other(file: Path) -> None:
    signing.sign(file, KEY, name="A")
    place = signing.beside(file)
    place.write_bytes(place.read_bytes().replace(b'"name":"A"', b'"name":"B"'))
    for again in (lambda: signing.check(file), lambda: signing.sign(file, OTHER)):
        with pytest.raises(ArtifactRefused, match=r"E741.*line 3 of .*net.onnx.sig"):
            again()
    place.write_bytes(b"")
    with pytest.raises(ArtifactRefused, match="E744"):
        signing.sign(file, OTHER)


def test_elsewhere(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "signatures"
    signing.sign(folder, KEY, to=place)
    assert signing.check(folder, at=place).entries
    with pytest.raises(ArtifactRefused, match="E742"):
        signing.check(folder)
    for inside in (folder / "SIGNATURE", folder / "evidence" / "SIGNATURE"):
        with pytest.raises(ConfigError, match="E749"):
            signing.sign(folder, KEY, to=inside)
    with pytest.raises(ConfigError, match="E749"):
        signing.sign(place, KEY, to=place)


def test_no_signature_takes_the_place_of_a_pipe(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    with pytest.raises(ResourceError, match="E605"):
        signing.sign(folder, KEY, to=pipe)
    assert pipe.is_fifo()


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    """An OSError of Python came out."""
    for act in (lambda path: signing.sign(path, KEY), signing.check):
        with pytest.raises(ConfigError, match="E749: nothing at"):
            act(tmp_path / ("n" * 300))


def test_a_folder_without_a_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    signing.sign(".", KEY)
    signing.check(folder)
    monkeypatch.chdir(folder / "evidence")
    signing.check("..")


def test_links(folder: Path) -> None:
    signing.sign(folder, KEY)
    link = folder.with_name("link")
    link.symlink_to(folder, target_is_directory=True)
    signing.check(link, at=signing.beside(folder))
    (folder / "evidence" / "away").symlink_to("../journal")
    for again in (lambda: signing.check(folder), lambda: signing.sign(folder, KEY)):
        with pytest.raises(ArtifactRefused, match="E747.*evidence/away: a link"):
            again()


def test_sealed_files_are_signed_inside(tmp_path: Path) -> None:
    path = tmp_path / "sealed"
    path.write_bytes(b"\x89VBSEAL\n" + bytes(100))
    with pytest.raises(ConfigError, match="E749.*rekey"):
        signing.sign(path, KEY)
    assert not signing.beside(path).exists()


def test_nothing_there(tmp_path: Path) -> None:
    for call in (lambda: signing.sign(tmp_path / "absent", KEY), lambda: signing.check(tmp_path / "absent")):
        with pytest.raises(ConfigError, match="E749: nothing at"):
            call()


# Keys and words.


def test_keys_that_sign(file: Path, tmp_path: Path) -> None:
    secret = keys.generate("ed25519")
    keys.write(tmp_path / "sign.key", secret)
    for key in (secret, tmp_path / "sign.key", str(tmp_path / "sign.key")):
        signing.sign(file, key)
    assert {each.signer for each in signing.check(file).entries} == {secret.public().raw}


def test_keys_that_do_not_sign(file: Path, tmp_path: Path) -> None:
    keys.write(tmp_path / "open.key", keys.generate("x25519"))
    keys.write(tmp_path / "sign.pub", keys.generate("ed25519").public())
    for key in (keys.generate("aes256"), tmp_path / "open.key", tmp_path / "sign.pub", tmp_path / "absent"):
        with pytest.raises(ConfigError, match="E748"):
            signing.sign(file, key)
    assert not signing.beside(file).exists()


def test_accepted_keys(tmp_path: Path) -> None:
    secret = keys.generate("ed25519")
    public, raw = secret.public(), secret.public().raw
    keys.write(tmp_path / "sign.pub", public)
    spellings = [
        public,
        raw,
        secret,
        public.text(),
        str(tmp_path / "sign.pub"),
        tmp_path / "sign.pub",
        KEY.public_key(),
    ]
    for value in spellings[:-1]:
        assert origin.accepted_keys(value) == {raw}
    assert origin.accepted_keys(spellings) == {raw, origin.public_bytes(KEY)}
    assert origin.accepted_keys(None) == set()
    wrong = [bytes(31), bytes(32), keys.generate("x25519").public(), tmp_path / "absent", []]
    for value in wrong:
        with pytest.raises(ConfigError, match="E748"):
            origin.accepted_keys(value)


@pytest.mark.parametrize("words", [{"name": "a" * 201}, {"role": "\x1b[2J"}, {"date": "today"}, {"date": ""}])
def test_words_that_cannot_be_signed(file: Path, words: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="E746"):
        signing.sign(file, KEY, **words)
    assert not signing.beside(file).exists()


# What fails.


def test_the_call_that_fails_leaves_what_was_there(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signing.sign(file, KEY, name="A")
    codes: set[str] = set()
    for at in range(1, 20):
        before = [each.name for each in signing.check(file).entries]
        with monkeypatch.context() as patch:
            patch.setattr(files, "system", shim := Failing(at, errno.EIO))
            try:
                signing.sign(file, OTHER, name="B")
                break
            except ResourceError as error:
                codes.add(error.code)
        names = [each.name for each in signing.check(file).entries]
        # The name is taken before the folder is synced: then the entry is there, and perhaps not for good.
        assert names == (before if "replace net.onnx.sig" not in shim.calls[:-1] else [*before, "B"])
    assert shim.calls == ["write", "fsync", "replace net.onnx.sig", "fsync"]
    assert codes == {"E601"}
    assert [entry.name for entry in sorted(file.parent.iterdir())] == ["net.onnx", "net.onnx.sig"]


def test_killed_at_every_call(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signing.sign(file, KEY, name="A")
    for at in range(1, 6):

        def work(at: int = at) -> None:
            monkeypatch.setattr(files, "system", Killing(at))
            signing.sign(file, OTHER, name="B")

        outcome = in_fork(work)
        assert outcome == (-signal.SIGKILL if at <= 4 else 0)
        assert {each.name for each in signing.check(file).entries} <= {"A", "B"}
        assert signing.check(file).entries[0].name == "A"


def test_two_at_once(file: Path, folder: Path) -> None:
    for path in (file, folder):
        fd = os.open(path, os.O_RDONLY)
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(ResourceError, match="E600"):
            signing.sign(path, KEY)
        os.close(fd)
        signing.sign(path, KEY)


def test_a_run_at_work(folder: Path) -> None:
    signing.sign(folder, KEY)
    with (folder / "LOCK").open("rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for call in (lambda: signing.sign(folder, KEY), lambda: signing.check(folder)):
            with pytest.raises(ResourceError, match="E600"):
                call()


def test_what_cannot_be_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signing.beside(file).mkdir()
    with pytest.raises(ResourceError, match="E604: EISDIR"):
        signing.check(file)

    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no locks")

    signing.beside(file).rmdir()
    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(ResourceError, match="E603"):
        signing.sign(file, KEY)


def test_no_secret_is_shown(file: Path, tmp_path: Path) -> None:
    secret = keys.generate("ed25519")
    said = repr(signing.sign(file, secret)) + signing.beside(file).read_text()
    for spelt in (secret.raw.hex(), origin.encoded(secret.raw), repr(secret.raw)):
        assert spelt not in said


def test_it_needs_no_torch() -> None:
    code = "import sys; from vambrace.assets.seal import signing; assert 'torch' not in sys.modules"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )


def test_the_file_is_that_of_the_format(file: Path) -> None:
    signing.sign(file, KEY)
    lines = signing.beside(file).read_bytes().split(b"\n")
    assert lines[0] == b"vambrace-signature/1"
    assert json.loads(lines[1])["size"] == 7
    assert signature.parse(signing.beside(file).read_bytes()).entries


def test_a_pipe_where_signatures_should_be(tmp_path: Path) -> None:
    """Who can write to the folder keeps nobody waiting."""
    (tmp_path / "x").write_bytes(b"content")
    os.mkfifo(tmp_path / "x.sig")
    with pytest.raises(ArtifactRefused, match="E744"):
        signing.check(tmp_path / "x")

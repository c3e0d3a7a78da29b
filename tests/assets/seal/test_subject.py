"""What is in a file or folder: all of it, by name and content, and nothing by way of a link."""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vambrace.assets.seal import subject
from vambrace.assets.seal.subject import Differences, Subject
from vambrace.core import canonical
from vambrace.errors import ArtifactRefused, ResourceError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "run"
    (top / "evidence").mkdir(parents=True)
    for name in ("plan.json", "journal", "results.json", "evidence/a.safetensors", ".hidden", "\U0001f511", "\uff5e"):
        (top / name).write_bytes(name.encode())
    return top


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    content = os.urandom(3 * 2**20 + 1)
    path.write_bytes(content)
    found = subject.of(path)
    assert found.as_json() == {
        "kind": "file",
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
    }
    link = tmp_path / "link"
    link.symlink_to(path)  # what is named itself may be a link
    assert subject.of(link) == found
    assert Subject.read(canonical.dumps(found.as_json())) == found


def test_a_folder(folder: Path) -> None:
    found = subject.of(folder)
    assert [each.path for each in found.files] == [
        ".hidden", "evidence/a.safetensors", "journal", "plan.json", "results.json", "\uff5e", "\U0001f511",
    ]  # fmt: skip
    for each in found.files:
        assert each.sha256 == hashlib.sha256(each.path.encode()).hexdigest()
        assert each.size == len(each.path.encode())
    assert Subject.read(canonical.dumps(found.as_json())) == found
    link = folder.with_name("link")
    link.symlink_to(folder, target_is_directory=True)
    assert subject.of(link) == found


def test_what_does_not_count(folder: Path) -> None:
    before = subject.of(folder)
    (folder / "LOCK").write_bytes(b"{}")
    (folder / ".results.json.4711.tmp").write_bytes(b"{")
    (folder / "evidence" / ".b.safetensors.1.tmp").write_bytes(b"")
    (folder / ".report.html.12.0123abcd.tmp").write_bytes(b"")
    (folder / "empty").mkdir()
    os.chmod(folder / "journal", 0o600)
    os.utime(folder / "journal", (0, 0))
    assert subject.of(folder) == before


@pytest.mark.parametrize(
    "name", ["evidence/LOCK", "a.1.tmp", ".a.tmp", ".a.x.tmp", ".a.1.tmp2", ".a.1.tmp/b", "lock", "a.sig"]
)
def test_what_only_looks_like_it_counts(folder: Path, name: str) -> None:
    before = subject.of(folder)
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    assert subject.differences(before, subject.of(folder)) == Differences(changed=(), added=(name,), removed=())


def test_a_lock_outside_of_a_run_counts(folder: Path) -> None:
    (folder / "plan.json").unlink()
    before = subject.of(folder)
    (folder / "LOCK").write_bytes(b"")
    assert subject.differences(before, subject.of(folder)).added == ("LOCK",)


def test_a_run_in_a_folder_of_runs(folder: Path) -> None:
    before = subject.of(folder.parent)
    (folder / "LOCK").write_bytes(b"")
    assert subject.of(folder.parent) == before


def test_what_differs_is_named(folder: Path) -> None:
    before = subject.of(folder)
    (folder / "results.json").write_bytes(b"changed")
    (folder / "journal").unlink()
    (folder / "evidence" / "b").write_bytes(b"")
    (folder / ".hidden").rename(folder / "shown")
    found = subject.differences(before, subject.of(folder))
    assert found == Differences(
        changed=("results.json",), added=("evidence/b", "shown"), removed=(".hidden", "journal")
    )
    assert str(found) == "changed: results.json; added: evidence/b, shown; removed: .hidden, journal"
    assert not subject.differences(before, before)


def test_the_same_length_is_not_the_same(folder: Path) -> None:
    before = subject.of(folder)
    (folder / "journal").write_bytes(b"JOURNAL")
    assert subject.differences(before, subject.of(folder)).changed == ("journal",)


def test_many_differences_are_counted(folder: Path) -> None:
    before = subject.of(folder)
    for number in range(7):
        (folder / f"n{number}").write_bytes(b"")
    assert str(subject.differences(before, subject.of(folder))) == "added: n0, n1, n2, n3, n4 and 2 more"


def test_a_file_is_no_folder(folder: Path) -> None:
    found = subject.differences(subject.of(folder), subject.of(folder / "journal"))
    assert found
    assert str(found) == "changed: its content"


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    place = os.getcwd()
    os.chdir(path.parent)  # paths of sockets are short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(place)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.symlink_to("../journal"),
        lambda path: path.symlink_to("."),
        lambda path: path.symlink_to("/nowhere"),
        pipe,
        listening,
    ],
    ids=["link", "link to a folder", "broken link", "pipe", "socket"],
)
def test_what_is_no_file_is_refused(folder: Path, make: Callable[[Path], None]) -> None:
    make(folder / "evidence" / "odd")
    with pytest.raises(ArtifactRefused, match="E747.*evidence/odd"):
        subject.of(folder)


def test_a_link_named_like_a_leftover_is_refused(folder: Path) -> None:
    (folder / ".a.1.tmp").symlink_to("journal")
    with pytest.raises(ArtifactRefused, match="E747"):
        subject.of(folder)


@pytest.mark.parametrize("name", [b"a\nb", b"a\x1b[2J", b"a\\b", b"\xff\xfe", b"\xc2\x9b"])
def test_names_that_cannot_be_written_down(folder: Path, name: bytes) -> None:
    Path(os.fsdecode(bytes(folder) + b"/" + name)).write_bytes(b"")
    with pytest.raises(ArtifactRefused, match="E747") as caught:
        subject.of(folder)
    assert str(caught.value).isprintable()


def test_a_folder_too_deep_for_recursion(tmp_path: Path) -> None:
    place = tmp_path / "a"
    place.mkdir()
    for _ in range(250):
        place /= "d"
        place.mkdir()
    (place / "f").write_bytes(b"")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        found = subject.of(tmp_path)
    finally:
        sys.setrecursionlimit(limit)
    assert found.files[0].path.count("/") == 251


def test_too_many_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "MOST_FILES", 7)
    line = canonical.dumps(subject.of(folder).as_json())
    monkeypatch.setattr(subject, "MOST_FILES", 6)
    with pytest.raises(ArtifactRefused, match="E747.*more than 6"):
        subject.of(folder)
    with pytest.raises(ValueError, match="more than 6 files"):
        Subject.read(line)


def test_a_run_that_is_being_written(folder: Path) -> None:
    lock = folder / "LOCK"
    lock.write_bytes(b"")
    with lock.open("rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ResourceError, match="E600"):
            subject.of(folder)
    subject.of(folder)


def test_what_cannot_be_read(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ResourceError, match="E604: ENOENT"):
        subject.of(tmp_path / "absent")
    with pytest.raises(ArtifactRefused, match="E747"):
        subject.of(Path("/dev/null"))

    def refuse(*_: object) -> int:
        raise PermissionError(13, "no")

    monkeypatch.setattr(os, "readv", refuse)
    with pytest.raises(ResourceError, match="E604: EACCES"):
        subject.of(folder)


def test_no_descriptor_leaks(folder: Path) -> None:
    (folder / "LOCK").write_bytes(b"")
    before = len(os.listdir("/proc/self/fd"))
    subject.of(folder)
    (folder / "z").symlink_to("journal")
    with pytest.raises(ArtifactRefused):
        subject.of(folder)
    assert len(os.listdir("/proc/self/fd")) == before

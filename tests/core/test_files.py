"""Durable writes: whole or not at all, whatever fails at whichever call."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from vambrace.core import disk, files
from vambrace.core.disk import unwritable
from vambrace.errors import ResourceError


class Failing(files.System):
    """Fails the N-th system call; `half` lets a failing write leave half of its bytes first."""

    def __init__(self, at: int, code: int, *, half: bool = False) -> None:
        self.at, self.code, self.half, self.calls = at, code, half, 0
        self.failed = ""

    def _call(self, name: str) -> None:
        self.calls += 1
        if self.calls == self.at:
            self.failed = name
            raise OSError(self.code, os.strerror(self.code))

    def write(self, fd: int, data: bytes | memoryview) -> int:
        if self.calls + 1 == self.at and self.half:
            os.write(fd, data[: len(data) // 2])
        self._call("write")
        return super().write(fd, data)

    def fsync(self, fd: int) -> None:
        self._call("fsync")
        super().fsync(fd)

    def truncate(self, fd: int, size: int) -> None:
        self._call("truncate")
        super().truncate(fd, size)

    def replace(self, source: Path, target: Path) -> None:
        self._call("replace")
        super().replace(source, target)

    def mkdir(self, path: Path) -> None:
        self._call("mkdir")
        super().mkdir(path)

    def unlink(self, path: Path) -> None:
        self._call("unlink")
        super().unlink(path)


def every_failure(
    monkeypatch: pytest.MonkeyPatch, work: Callable[[], object], code: int, *, half: bool
) -> list[tuple[str, ResourceError]]:
    """Run `work` with call 1, 2, ... failing until it gets through; what failed and what was raised."""
    found: list[tuple[str, ResourceError]] = []
    for at in range(1, 100):
        shim = Failing(at, code, half=half)
        monkeypatch.setattr(files, "system", shim)
        try:
            work()
        except ResourceError as error:
            found.append((shim.failed, error))
        else:
            assert not shim.failed, "a failure was swallowed"
            return found
    raise AssertionError("it never got through")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("half", [False, True])
def test_write_file_fails_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, half: bool) -> None:
    path = tmp_path / "results.json"
    files.write_file(path, b"old")
    seen: list[bytes] = []

    def work() -> None:
        files.write_file(path, b"old")
        monkeypatch.setattr(files, "system", shim := files.system)
        assert shim
        try:
            files.write_file(path, b"new and longer")
        finally:
            seen.append(path.read_bytes())

    failures = every_failure(monkeypatch, work, code, half=half)
    assert {name for name, _ in failures} == {"write", "fsync", "replace"}
    assert set(seen) <= {b"old", b"new and longer"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]
    for _, error in failures:
        assert error.code == "E601"
        assert str(path) in error.seen
        assert "MiB free" in error.seen
        assert errno.errorcode[code] in error.seen
        assert "--resume" not in error.fix  # not every file is part of a run


def drafted(path: Path, data: bytes) -> None:
    draft = files.Draft(path)
    try:
        draft.write(data)
        draft.commit()
    finally:
        draft.discard()


WRITERS: dict[str, Callable[[Path, bytes], object]] = {
    "write_file": files.write_file,
    "create_file": files.create_file,
    "draft": drafted,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_what_others_put_where_a_temporary_file_could_be_is_left_alone(
    writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder that others can write to: a link to a file of ours, or a file that they keep open."""
    victim, path = tmp_path / "victim", tmp_path / "a"
    victim.write_bytes(b"ours")
    planted = [tmp_path / f".a.{os.getpid()}.tmp", tmp_path / f".a.{os.getpid()}.01234567.tmp"]
    planted[0].symlink_to(victim)
    WRITERS[writer](path, b"new")
    assert path.read_bytes() == b"new"
    path.unlink()
    # Had they guessed the name, it would be refused.
    monkeypatch.setattr(files.secrets, "token_hex", lambda size: "0123456789abcdef"[: 2 * size])
    planted[1].symlink_to(victim)
    with pytest.raises(ResourceError, match="EEXIST"):
        WRITERS[writer](path, b"new")
    assert victim.read_bytes() == b"ours"
    assert all(each.is_symlink() for each in planted)
    assert not path.exists()


@pytest.mark.parametrize("writer", WRITERS)
def test_no_two_temporary_files_have_one_name(writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    flags: list[int] = []

    class Watching(files.System):
        def replace(self, source: Path, target: Path) -> None:
            names.append(source.name)
            super().replace(source, target)

    opened = os.open

    def opening(path: Path, how: int, mode: int = 0o777) -> int:
        if Path(path).name.endswith(".tmp"):
            flags.append(how)
        return opened(path, how, mode)

    monkeypatch.setattr(files, "system", Watching())
    monkeypatch.setattr(os, "open", opening)
    for number in range(8):
        WRITERS[writer](tmp_path / f"{number}", b"")
    # As docs/formats/signature-v1.md says of what a killed process leaves.
    assert all(re.fullmatch(rf"\.{number}\.[0-9]+\.[0-9a-f]{{8}}\.tmp", name) for number, name in enumerate(names))
    assert len({name.split(".")[-2] for name in names}) == 8
    wanted = os.O_EXCL | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    assert [how & wanted for how in flags] == [wanted] * 8
    os.umask(umask := os.umask(0))
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o644 & ~umask}


@pytest.mark.parametrize("half", [False, True])
def test_create_file_fails_whole_and_overwrites_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half: bool
) -> None:
    path = tmp_path / "a.key"
    seen: set[bytes] = set()

    def work() -> None:
        path.unlink(missing_ok=True)
        try:
            files.create_file(path, b"new", mode=0o600)
        finally:
            seen.add(path.read_bytes() if path.exists() else b"none")

    failures = every_failure(monkeypatch, work, errno.ENOSPC, half=half)
    assert [name for name, _ in failures] == ["write", "fsync", "replace", "fsync"]
    # Only where the folder's own entry could not be synced is the file there in spite of the error.
    assert seen == {b"none", b"new"}
    assert {error.code for _, error in failures} == {"E601"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.key"]
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        files.create_file(path, b"other")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("given", [True, False])
def test_a_draft_that_resembles_another(given: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the umask takes; and no group gets what another one had."""
    asked: list[tuple[int, int]] = []

    def chown(fd: int, user: int, group: int) -> None:
        asked.append((user, group))
        if not given:
            raise PermissionError

    monkeypatch.setattr(os, "fchown", chown)
    other, path = tmp_path / "other", tmp_path / "new"
    other.write_bytes(b"")
    other.chmod(0o664)
    with other.open() as stream:
        number = stream.fileno()
        found = os.fstat(number)
        with monkeypatch.context() as patched:
            patched.setattr(os, "fstat", lambda fd: found if fd == number else _owned_by(fd, 12345))
            draft = files.Draft(path, like=number)
        draft.commit()
    assert asked == [(found.st_uid, -1), (-1, found.st_gid)]
    assert path.stat().st_mode & 0o777 == (0o664 if given else 0o604)


def _owned_by(fd: int, who: int) -> os.stat_result:
    found = list(os.stat(fd))
    found[4] = found[5] = who
    return os.stat_result(found)


@pytest.mark.parametrize("half", [False, True])
def test_a_draft_is_whole_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half: bool) -> None:
    path = tmp_path / "a.sealed"
    seen: list[bytes] = []

    def work() -> None:
        path.write_bytes(b"old")
        draft = files.Draft(path, mode=0o600)
        try:
            draft.write(b"new ")
            draft.write(memoryview(b"content"))
            assert path.read_bytes() == b"old"
            draft.commit()
        except ResourceError:
            draft.discard()
            raise
        finally:
            seen.append(path.read_bytes())
        draft.discard()

    before = len(os.listdir("/proc/self/fd"))
    failures = every_failure(monkeypatch, work, errno.ENOSPC, half=half)
    assert [name for name, _ in failures] == ["write", "write", "fsync", "replace", "fsync"]
    # Only where the folder's own entry could not be synced is the new file there in spite of the error.
    assert seen == [b"old"] * 4 + [b"new content"] * 2
    assert {error.code for _, error in failures} == {"E601"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.sealed"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(os.listdir("/proc/self/fd")) == before
    files.Draft(path).discard()
    assert path.read_bytes() == b"new content"


@pytest.mark.parametrize("half", [False, True])
def test_appender_never_writes_behind_torn_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half: bool) -> None:
    real = files.system
    for at in range(1, 4):
        for then in (1, 99):  # the cut that follows a failure works, or fails too
            path = tmp_path / f"journal-{at}-{then}"
            monkeypatch.setattr(files, "system", real)
            appender = files.Appender(path)
            appender.append(b"one\n")
            shim = Failing(at, errno.ENOSPC, half=half)
            monkeypatch.setattr(files, "system", shim)
            if at == 3:
                appender.append(b"two\n")
            else:
                with pytest.raises(ResourceError, match="E601"):
                    appender.append(b"two\n")
            assert path.read_bytes() in {b"one\n", b"one\ntwo\n"}
            monkeypatch.setattr(files, "system", real)
            appender.append(b"three\n")
            assert path.read_bytes().split(b"\n")[-2] == b"three"
            appender.close()
            appender.close()


def test_appender_that_cannot_cut_back_refuses_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Failing):
        def truncate(self, fd: int, size: int) -> None:
            raise OSError(errno.EIO, "gone")

    appender = files.Appender(tmp_path / "journal")
    appender.append(b"one\n")
    with monkeypatch.context() as patch:
        patch.setattr(files, "system", Broken(1, errno.EIO, half=True))
        with pytest.raises(ResourceError):
            appender.append(b"two\n")
    with pytest.raises(ResourceError):
        appender.append(b"three\n")
    assert (tmp_path / "journal").read_bytes() == b"one\ntw"
    appender.close()


def test_appender_cuts_to_size(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"whole\nto")
    appender = files.Appender(path, size=6)
    appender.append(b"next\n")
    appender.close()
    assert path.read_bytes() == b"whole\nnext\n"


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(files.System):
        def write(self, fd: int, data: bytes | memoryview) -> int:
            return os.write(fd, data[:3])

    monkeypatch.setattr(files, "system", Slow())
    files.write_file(tmp_path / "a", b"0123456789")
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_make_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.make_folder(tmp_path / "a" / "b")
    files.make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ResourceError, match="ENOTDIR"):
        files.make_folder(tmp_path / "file")
    with pytest.raises(ResourceError, match="E601"):
        files.make_folder(tmp_path / "file" / "below")
    count = iter(range(100))
    failures = every_failure(
        monkeypatch, lambda: files.make_folder(tmp_path / str(next(count)) / "c"), errno.ENOSPC, half=False
    )
    assert [name for name, _ in failures] == ["mkdir", "fsync", "mkdir", "fsync"]


def test_publish(tmp_path: Path) -> None:
    prepared, target = tmp_path / ".new", tmp_path / "run"
    prepared.mkdir()
    (prepared / "plan.json").write_bytes(b"{}")
    files.publish(prepared, target)
    assert (target / "plan.json").read_bytes() == b"{}"
    prepared.mkdir()
    with pytest.raises(FileExistsError):
        files.publish(prepared, target)
    assert (target / "plan.json").exists()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileExistsError):
        files.publish(prepared, tmp_path / "file")
    with pytest.raises(ResourceError, match="E601"):
        files.publish(tmp_path / "absent", tmp_path / "other")


def test_store_is_content_addressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = files.store(tmp_path / "evidence", b"data", ".bin")
    assert name == hashlib.sha256(b"data").hexdigest() + ".bin"
    monkeypatch.setattr(files, "system", Failing(1, errno.ENOSPC))
    assert files.store(tmp_path / "evidence", b"data", ".bin") == name  # nothing to write
    with pytest.raises(ResourceError):
        files.store(tmp_path / "evidence", b"other", ".bin")
    assert len(list((tmp_path / "evidence").iterdir())) == 1


def test_overwrite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    fd = os.open(path, os.O_RDWR)
    try:
        failures = every_failure(monkeypatch, lambda: files.overwrite(fd, 3, b"abcd", path=path), errno.EIO, half=True)
    finally:
        os.close(fd)
    assert [name for name, _ in failures] == ["write", "fsync"]
    assert {error.code for _, error in failures} == {"E601"}
    assert path.read_bytes() == b"012abcd789"


def test_remove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = iter("abc")

    def work() -> None:
        path = tmp_path / next(names)
        path.write_bytes(b"")
        files.remove(path)
        assert not path.exists()

    failures = every_failure(monkeypatch, work, errno.EIO, half=False)
    assert [name for name, _ in failures] == ["unlink", "fsync"]
    with pytest.raises(ResourceError, match="E601"):
        files.remove(tmp_path / "absent")


def test_sweep_takes_only_leftovers(tmp_path: Path) -> None:
    for name in (".a.12.tmp", "b.tmp", ".hidden", "plan.json"):
        (tmp_path / name).write_bytes(b"")
    files.sweep(tmp_path)
    files.sweep(tmp_path / "absent")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".hidden", "b.tmp", "plan.json"]


@pytest.mark.parametrize(
    ("code", "fix"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENFILE, "ulimit -n"),
        (errno.EACCES, "permissions"),
        (errno.EIO, "permissions"),
    ],
)
def test_what_is_told_of_a_file_that_cannot_be_written(tmp_path: Path, code: int, fix: str) -> None:
    """What helps follows from the error; the room is that of the path itself, which may be a disk of its own."""
    error = OSError(code, os.strerror(code))
    told = unwritable(tmp_path, error)
    assert (told.code, told.exit_code) == ("E601", 6)
    assert told.seen.startswith(f"{errno.errorcode[code]} writing {tmp_path} (")
    assert fix in told.fix
    known = unwritable(tmp_path / "absent" / "a", error, named="the plan", otherwise="ask somebody")
    assert known.seen.startswith(f"{errno.errorcode[code]} writing the plan (")
    assert "MiB free" in known.seen
    assert (known.fix == "ask somebody") == (fix == "permissions")


def test_the_room_is_that_of_the_folder_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = {tmp_path / "disk": 3 * 2**20}
    sizes = type("Usage", (), {})

    def usage(path: Path) -> object:
        found = sizes()
        found.free = room.get(path, 500 * 2**20)
        return found

    monkeypatch.setattr(disk.shutil, "disk_usage", usage)
    assert "(3 MiB free)" in unwritable(tmp_path / "disk", OSError(errno.ENOSPC, "full")).seen


def test_no_file_takes_the_place_of_a_pipe(tmp_path: Path) -> None:
    """Its readers would wait for ever, and everybody's device would be a file."""
    os.mkfifo(pipe := tmp_path / "pipe")
    for write in (lambda: files.write_file(pipe, b"data"), lambda: files.Draft(pipe)):
        with pytest.raises(ResourceError, match="E605"):
            write()
    with pytest.raises(FileExistsError):
        files.create_file(pipe, b"data")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileExistsError):
        files.publish(tmp_path / "folder", pipe)
    assert pipe.is_fifo()
    assert len(list(tmp_path.iterdir())) == 2


def test_read_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    assert files.read_file(tmp_path / "a") == b"a"
    with pytest.raises(FileNotFoundError):
        files.read_file(tmp_path / "b")
    with pytest.raises(ResourceError, match="E604"):
        files.read_file(tmp_path)


def test_no_descriptor_leaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(os.listdir("/proc/self/fd"))
    every_failure(monkeypatch, lambda: files.write_file(tmp_path / "a", b"data"), errno.EIO, half=True)
    every_failure(monkeypatch, lambda: files.Appender(tmp_path / "b", size=0).close(), errno.EIO, half=False)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127, "a" + "ü" * 127])
def test_names_as_long_as_they_can_be(tmp_path: Path, name: str) -> None:
    """The name of the draft was longer than that, and so than file systems take."""
    files.write_file(tmp_path / name, b"whole")
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [(name, b"whole")]
    assert files.draft_name("net.onnx") == "net.onnx"

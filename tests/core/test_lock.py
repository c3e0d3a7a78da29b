"""One process at a time; whatever ends the holder ends the lock."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vambrace.core.lock import Lock
from vambrace.errors import ResourceError

HOLD = """
import sys, time
from pathlib import Path
from vambrace.core.lock import Lock
Lock.take(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""
TRY = """
import sys
from pathlib import Path
from vambrace.core.lock import Lock
from vambrace.errors import ResourceError
sys.stdin.readline()
try:
    Lock.take(Path(sys.argv[1]))
except ResourceError as error:
    print(error.seen)
    sys.exit(error.exit_code)
print("held", flush=True)
sys.stdin.readline()
"""


def start(code: str, path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_the_second_one_is_told_who_holds_it(tmp_path: Path) -> None:
    with start(HOLD, tmp_path / "LOCK") as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ResourceError, match="E600") as caught:
            Lock.take(tmp_path / "LOCK")
        assert caught.value.exit_code == 6
        assert f"process {holder.pid} on {socket.gethostname()}, since 2" in caught.value.seen
        assert str(tmp_path) in caught.value.seen
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    lock = Lock.take(tmp_path / "LOCK")
    assert lock.stale is not None
    assert lock.stale.pid == holder.pid
    lock.release()
    assert Lock.take(tmp_path / "LOCK").stale is None


def test_of_many_starts_exactly_one_runs(tmp_path: Path) -> None:
    starts = [start(TRY, tmp_path / "LOCK") for _ in range(5)]
    try:
        for process in starts:
            assert process.stdin
            process.stdin.write("\n")
            process.stdin.flush()
        said = []
        for process in starts:
            assert process.stdout
            said.append(process.stdout.readline())
        assert said.count("held\n") == 1
        assert sum("is in use by" in line for line in said) == 4
    finally:
        for process in starts:
            process.communicate("\n")
    assert sorted(process.returncode for process in starts) == [0, 6, 6, 6, 6]


def test_the_same_process_is_no_exception(tmp_path: Path) -> None:
    lock = Lock.take(tmp_path / "LOCK")
    with pytest.raises(ResourceError, match=f"process {os.getpid()}"):
        Lock.take(tmp_path / "LOCK")
    lock.release()
    lock.release()
    Lock.take(tmp_path / "LOCK").release()
    assert (tmp_path / "LOCK").read_bytes() == b""


@given(content=st.binary(max_size=80) | st.sampled_from([b"{}", b'{"pid":1}', b"[1]", b'{"pid":1e999}', b"9" * 80]))
def test_any_note_is_survived(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("lock") / "LOCK"
    path.write_bytes(content)
    lock = Lock.take(path)
    lock.release()


def test_a_held_lock_without_a_note_is_still_held(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "LOCK", os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(ResourceError, match="another process"):
        Lock.take(tmp_path / "LOCK")
    os.close(fd)


def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(ResourceError, match="E603"):
        Lock.take(tmp_path / "LOCK")


@pytest.mark.parametrize(
    ("code", "fix"),
    [
        (errno.EROFS, "permissions"),
        (errno.EACCES, "permissions"),
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENFILE, "ulimit -n"),
        (errno.EIO, "permissions"),
    ],
)
@pytest.mark.parametrize("call", ["open", "ftruncate", "pwrite"])
def test_a_lock_file_that_cannot_be_written_says_nothing_about_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, fix: str
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(ResourceError) as caught:
            Lock.take(tmp_path / "LOCK")
    assert caught.value.code == "E601"
    assert caught.value.exit_code == 6
    assert f"{errno.errorcode[code]} writing {tmp_path / 'LOCK'}" in caught.value.seen
    assert "MiB free" in caught.value.seen
    assert fix in caught.value.fix
    Lock.take(tmp_path / "LOCK").release()  # and nothing was left locked


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="E601: ENOENT"):
        Lock.take(tmp_path / "absent" / "LOCK")


def test_the_lock_survives_a_rename_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / ".new").mkdir()
    lock = Lock.take(tmp_path / ".new" / "LOCK")
    (tmp_path / ".new").rename(tmp_path / "run")
    with pytest.raises(ResourceError, match="E600"):
        Lock.take(tmp_path / "run" / "LOCK")
    lock.release()


def test_children_do_not_inherit_it(tmp_path: Path) -> None:
    lock = Lock.take(tmp_path / "LOCK")
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"], close_fds=False) as child:
        lock.release()
        Lock.take(tmp_path / "LOCK").release()
        child.kill()

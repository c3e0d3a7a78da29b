import errno
import os
import socket
from pathlib import Path

import pytest

from vambrace.core.disk import check_writable, refuse_special, unreadable
from vambrace.errors import ResourceError


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check_writable(tmp_path / "new")
    check_writable(tmp_path / "file")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file"]
    for name, word in (("no/new", "ENOENT"), ("file/new", "ENOTDIR"), (".", "EISDIR")):
        with pytest.raises(ResourceError, match=f"E601.*{word}"):
            check_writable(tmp_path / name)
    with pytest.raises(ResourceError, match="E601"):
        check_writable(Path("/proc/new"))


def test_what_no_file_may_take_the_place_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    os.mkfifo("pipe")
    Path("link").symlink_to("pipe")
    Path("stdout").symlink_to("/proc/self/fd/1")  # as /dev/stdout is, wherever the output goes
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        for name in ("pipe", "link", "stdout", "socket"):
            for check in (refuse_special, check_writable):
                with pytest.raises(ResourceError, match=f"E605: {name} is a device, pipe.*write to -"):
                    check(Path(name))


def test_files_folders_and_new_places_are_not_special(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "to").symlink_to("file")
    (tmp_path / "away").symlink_to("nowhere")
    for name in ("file", "to", "away", "new", "no/new", "file/new", ".", "a\0b", "x" * 300):
        refuse_special(tmp_path / name)


@pytest.mark.parametrize(("code", "fix"), [(errno.EMFILE, "ulimit -n"), (errno.EACCES, "permissions")])
def test_what_is_told_of_a_file_that_cannot_be_read(code: int, fix: str) -> None:
    told = unreadable("the plan", OSError(code, "no"))
    assert (told.code, told.exit_code) == ("E604", 6)
    assert told.seen == f"{errno.errorcode[code]} reading the plan"
    assert fix in told.fix

"""Content through pipes: what breaks off is an error with a code, and never looks like an end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from vambrace.cli.main import main

CONTENT = os.urandom(200_000)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert main(["keygen", "me"]) == 0
    Path("plain").write_bytes(CONTENT)
    assert main(["seal", "plain", "sealed", "-r", "me.pub", "--chunk-size", "65536"]) == 0
    return tmp_path


def vambrace(*arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    # Buffered, as it is outside of tests.
    command = [sys.executable, "-m", "vambrace.cli.main", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(command, env=environment, timeout=60, check=False, **options)  # pyright: ignore


def fed(path: Path, data: bytes) -> Callable[[], None]:
    """A pipe with a name, filled as soon as somebody reads it."""
    os.mkfifo(path)
    thread = threading.Thread(target=path.write_bytes, args=(data,), daemon=True)
    thread.start()
    return lambda: thread.join(10)


@pytest.mark.parametrize("command", [["open", "sealed", "-", "-i", "me"], ["seal", "plain", "-", "-r", "me.pub"]])
def test_a_disk_that_is_full(command: list[str], place: Path) -> None:
    Path("plain").write_bytes(b"few bytes, which wait in a buffer until the end")
    assert main(["seal", "plain", "sealed", "-r", "me.pub", "--force"]) == 0
    with Path("/dev/full").open("wb") as full:
        done = vambrace(*command, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 6
    assert b"E579" in done.stderr
    assert b"No space left" in done.stderr
    assert b"intact" not in done.stderr


def test_a_reader_that_leaves(place: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = vambrace("open", "sealed", "-", "-i", "me", stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert done.returncode == 6
    assert b"E579" in done.stderr
    assert b"Traceback" not in done.stderr


def test_closed_input(place: Path) -> None:
    script = f"{sys.executable} -m vambrace.cli.main seal - x -r me.pub <&-"
    done = subprocess.run(["sh", "-c", script], stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == 6
    assert b"E604 standard input cannot be read: it is closed" in done.stderr
    assert not Path("x").exists()


def test_closed_output(place: Path) -> None:
    script = f"{sys.executable} -m vambrace.cli.main open sealed - -i me >&-"
    done = subprocess.run(["sh", "-c", script], stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == 6
    assert b"E579" in done.stderr


def test_a_passphrase_before_the_content(place: Path) -> None:
    """Both on standard input: nothing behind the line belongs to the passphrase, and nothing is lost."""
    done = vambrace("seal", "-", "worded", "--passphrase-fd", "0", input=b"correct horse\n" + CONTENT)
    assert done.returncode == 0
    done = vambrace("open", "worded", "again", "--passphrase-fd", "0", input=b"correct horse\n")
    assert done.returncode == 0
    assert Path("again").read_bytes() == CONTENT


def test_pipes_with_a_name(place: Path) -> None:
    ended = fed(Path("fifo"), CONTENT)
    assert main(["seal", "fifo", "piped", "-r", "me.pub"]) == 0
    ended()
    ended = fed(Path("fifo2"), Path("piped").read_bytes())
    assert main(["open", "fifo2", "again", "-i", "me"]) == 0
    ended()
    assert Path("again").read_bytes() == CONTENT
    with Path("piped").open("rb") as stream:  # as `open <(command)` names it
        done = vambrace("open", "/dev/stdin", "third", "-i", "me", stdin=stream)
    assert done.returncode == 0
    assert Path("third").read_bytes() == CONTENT


def test_a_pipe_that_cannot_be_looked_into(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Named as `<(command)` is: a link to something that has no path."""
    reading, writing = os.pipe()
    for arguments in (["inspect"], ["rewrap", "-i", "me", "--add", "me.pub"], ["rekey", "-i", "me", "-r", "me.pub"]):
        assert main([arguments[0], f"/dev/fd/{reading}", *arguments[1:]]) in {2, 6}
    os.close(reading)
    os.close(writing)
    assert "no regular file" in capsys.readouterr().err

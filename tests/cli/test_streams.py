"""Content through pipes: what breaks off is an error with a code, and never looks like an end."""

from __future__ import annotations

import fcntl
import io
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from vambrace.cli.main import main

CONTENT = b"content " + os.urandom(200_000)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert main(["keygen", "me"]) == 0
    Path("plain").write_bytes(CONTENT)
    assert main(["seal", "plain", "sealed", "-r", "me.pub", "--chunk-size", "65536"]) == 0
    return tmp_path


def vambrace(*arguments: str, buffered: bool = True, **options: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "vambrace.cli.main", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment |= {} if buffered else {"PYTHONUNBUFFERED": "1"}
    return subprocess.run(command, env=environment, timeout=60, check=False, **options)  # pyright: ignore


def fed(path: Path, data: bytes) -> Callable[[], None]:
    """A pipe with a name, filled as soon as somebody reads it."""
    os.mkfifo(path)
    thread = threading.Thread(target=path.write_bytes, args=(data,), daemon=True)
    thread.start()
    return lambda: thread.join(10)


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("command", ["open sealed - -i me", "seal plain - -r me.pub", "inspect sealed --json"])
def test_a_pipe_that_takes_no_more_and_does_not_wait(command: str, buffered: bool, place: Path) -> None:
    """Where Python does not buffer, what it did not take was dropped, and the exit code was 0."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    if "inspect" in command:
        os.write(writing, bytes(fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ) - 100))
    try:
        done = vambrace(*command.split(), buffered=buffered, stdout=writing, stderr=subprocess.PIPE)
    finally:
        os.close(reading)
        os.close(writing)
    assert done.returncode == 6
    assert b"E579" in done.stderr
    assert b"intact" not in done.stderr


@pytest.mark.parametrize("buffered", [True, False])
def test_content_goes_out_whole(buffered: bool, place: Path) -> None:
    done = vambrace("open", "sealed", "-", "-i", "me", buffered=buffered, stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (0, CONTENT)


def test_input_that_does_not_wait_is_no_end(place: Path) -> None:
    """It ended as a bug of vambrace, or what had come so far was taken for all."""
    Path("key").write_bytes(bytes(16))
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    try:
        done = vambrace("open", "-", "out", "--mindspore", "key", stdin=reading, stderr=subprocess.PIPE)
    finally:
        os.close(reading)
        os.close(writing)
    assert done.returncode == 6
    assert b"E604 EAGAIN" in done.stderr


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


@pytest.fixture
def through(monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Callable[..., Done]:
    """Run a command in this process, fed with bytes."""

    def run(*arguments: str, data: bytes = b"") -> Done:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        capsysbinary.readouterr()
        code = main([*arguments])
        return Done(code, *capsysbinary.readouterr())

    return run


class Done(NamedTuple):
    code: int
    out: bytes
    err: bytes


def damaged_in_chunk(index: int) -> bytes:
    data = bytearray(Path("sealed").read_bytes())
    data[65_536 + index * (65_536 + 20) + 100] ^= 1
    return bytes(data)


@pytest.mark.parametrize("index", [0, 2, 3])
@pytest.mark.parametrize("source", ["file", "pipe"])
def test_what_was_verified_goes_out_and_then_an_error(
    index: int, source: str, place: Path, through: Callable[..., Done]
) -> None:
    """Of a damaged file, stdout gets whole chunks before the damage; a file does not appear at all."""
    Path("bad").write_bytes(damaged_in_chunk(index))
    data = Path("bad").read_bytes()
    name = "-" if source == "pipe" else "bad"
    done = through("open", name, "-", "-i", "me", data=data)
    assert done.code == 3
    assert f"E705 chunk {index} is not authentic".encode() in done.err
    assert b"intact" not in done.err
    assert done.out == CONTENT[: index * 65_536]
    before = set(place.iterdir())
    done = through("open", name, "target", "-i", "me", data=data)
    assert done.code == 3
    assert set(place.iterdir()) == before


@pytest.mark.parametrize("cut", [0, 1, 72, 73, 2000])
def test_an_end_that_is_missing_never_looks_like_one(cut: int, place: Path, through: Callable[..., Done]) -> None:
    data = Path("sealed").read_bytes()
    done = through("open", "-", "-", "-i", "me", data=data[: len(data) - cut])
    if not cut:
        assert (done.code, done.out) == (0, CONTENT)
        return
    assert done.code == 3
    assert b"E706" in done.err
    assert done.out == CONTENT[: len(CONTENT) // 65_536 * 65_536]


def test_with_a_signer_nothing_goes_out_before_the_signature_holds(place: Path, through: Callable[..., Done]) -> None:
    assert main(["keygen", "maker", "--kind", "ed25519"]) == 0
    assert main(["keygen", "stranger", "--kind", "ed25519"]) == 0
    options = ["-r", "me.pub", "--chunk-size", "65536", "--force"]
    assert main(["seal", "plain", "sealed", "--sign", "stranger", *options]) == 0
    command = ["open", "-", "-", "-i", "me", "--signer", "maker.pub"]
    by_another = Path("sealed").read_bytes()
    done = through(*command, data=by_another)
    assert (done.code, done.out) == (3, b"")
    assert b"E743" in done.err
    # Asked to, it lets out what was decrypted, and says in the end that it is not the maker's.
    done = through(*command, "--stream-unverified", data=by_another)
    assert done.code == 3
    assert b"E743" in done.err
    assert done.out
    assert CONTENT.startswith(done.out)
    assert len(done.out) < len(CONTENT)
    assert main(["seal", "plain", "sealed", "--sign", "maker", *options]) == 0
    done = through(*command, data=Path("sealed").read_bytes())
    assert (done.code, done.out) == (0, CONTENT)
    assert b"intact, signed by" in done.err


@pytest.mark.parametrize("way", ["stdin", "pipe"])
def test_a_pickle_in_a_stream_is_refused_unless_asked_for(way: str, place: Path) -> None:
    data = pickle.dumps({"w": [1.0]})
    for options, code in (([], 3), (["--allow-pickle"], 0)):
        if way == "pipe":
            ended = fed(Path(f"fifo{code}"), data)
            assert main(["seal", f"fifo{code}", "pickled", "-r", "me.pub", *options]) == code
            ended()
        else:
            done = vambrace("seal", "-", "pickled", "-r", "me.pub", *options, input=data, stderr=subprocess.PIPE)
            assert done.returncode == code
            assert (b"E761 the stream begins as a pickle" in done.stderr) == bool(code)
        assert Path("pickled").exists() == (not code)
    assert main(["open", "pickled", "again", "-i", "me"]) == 0
    assert Path("again").read_bytes() == data


@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize("command", [["open", "sealed"], ["open", "folded"], ["seal", "plain", "-r", "me.pub"]])
def test_no_file_takes_the_place_of_a_pipe(
    command: list[str], force: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("folder").mkdir()
    assert main(["seal", "folder", "folded", "-r", "me.pub"]) == 0
    os.mkfifo("pipe")
    Path("link").symlink_to("pipe")
    before = set(place.iterdir())
    for target in ("pipe", "link"):
        identity = ["-i", "me"] if command[0] == "open" else []
        assert main([*command[:2], target, *command[2:], *identity, *force]) == 6
        assert f"E605 {target} is a device, pipe or socket" in capsys.readouterr().err
    assert Path("pipe").is_fifo()
    assert set(place.iterdir()) == before


def test_other_commands_leave_pipes_alone(place: Path) -> None:
    assert main(["keygen", "maker", "--kind", "ed25519"]) == 0
    os.mkfifo("pipe")
    os.mkfifo("other.pub")
    os.mkfifo("plain.sig")
    for command in (
        ["sign", "plain", "--key", "maker"],
        ["sign", "plain", "--key", "maker", "--to", "pipe"],
        ["keygen", "pipe"],
        ["keygen", "other"],
        ["rewrap", "pipe", "-i", "me", "--add", "me.pub"],
        ["rekey", "pipe", "-i", "me", "-r", "me.pub"],
    ):
        assert main(command) in {2, 3, 6}
    assert all(Path(name).is_fifo() for name in ("pipe", "other.pub", "plain.sig"))


def test_more_threads_than_can_be_are_refused_by_every_command(place: Path, through: Callable[..., Done]) -> None:
    for command in (
        ["seal", "-", "x", "-r", "me.pub"],
        ["seal", "plain", "x", "-r", "me.pub"],
        ["open", "-", "x", "-i", "me"],
        ["open", "sealed", "x", "-i", "me"],
        ["verify", "plain"],
        ["rekey", "sealed", "-i", "me", "-r", "me.pub"],
    ):
        for threads in ("0", "257", "99999999"):
            done = through(*command, "--threads", threads, data=Path("sealed").read_bytes())
            assert (done.code, done.out) == (2, b"")
            assert f"E712 {threads} threads".encode() in done.err
        assert not Path("x").exists()
    for command in (["seal", "plain", "x", "-r", "me.pub"], ["open", "x", "y", "-i", "me"]):
        assert through(*command, "--threads", "256").code == 0
    assert Path("y").read_bytes() == CONTENT

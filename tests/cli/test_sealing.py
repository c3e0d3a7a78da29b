"""What `seal` and `open` tell of how far they are, for files, folders and streams."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vambrace.assets import seal
from vambrace.assets.obfuscate.locked import key_bytes
from vambrace.assets.obfuscate.locking import lock
from vambrace.assets.seal.recipients import recipients_of
from vambrace.cli import sealed, sealing
from vambrace.cli.main import main
from vambrace.core import files

MIB = 2**20


class Heard:
    """A progress that keeps what it is told: (name, total, steps so far, whether it ended), for each piece of work."""

    def __init__(self) -> None:
        self.works: list[list[object]] = []
        self.steps: list[int] = []

    def start(self, name: str, total: int) -> None:
        self.works.append([name, total, 0, False])

    def advance(self, name: str, steps: int = 1, note: str = "") -> None:
        work = self.works[-1]
        assert work[0] == name
        assert isinstance(work[2], int)
        work[2] += steps
        self.steps.append(steps)

    def finish(self, name: str, note: str = "") -> None:
        assert self.works[-1][0] == name
        self.works[-1][3] = True


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    told = Heard()

    @contextlib.contextmanager
    def listening() -> Generator[Heard]:
        yield told

    for module in (sealing, sealed):
        monkeypatch.setattr(module, "listening", listening)
    return told


def test_what_a_file_says_stays_in_its_field(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A value could be taken for further fields beside it."""
    public = {"v": '2"; signer: "maker', "w": "a;b", "x: y; z": 1, "when": "12:30", "in": {"a": "b:", "c": "d"}}
    with seal.Writer(Path("sealed"), recipients_of("me.pub"), public=public) as writer:
        writer.write(b"evil")
    assert main(["inspect", "sealed"]) == 0
    shown = r'in: {a: "b:"; c: d}; v: "2\"; signer: \"maker"; w: "a;b"; when: 12:30; "x: y; z": 1'
    assert shown in capsys.readouterr().out


def test_rekey_asks_who_made_it_before_it_vouches(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a stranger had sealed for its recipient was signed anew, without a word."""
    assert main(["keygen", "stranger", "--kind", "ed25519"]) == 0
    again = ["rekey", "sealed", "-i", "me", "-r", "me.pub", "--sign", "maker"]
    for key, signer, code in (("stranger", "maker.pub", 3), ("maker", "maker.pub", 0), ("stranger", None, 0)):
        assert main(["seal", "plain", "sealed", "-r", "me.pub", "--sign", key, "--force"]) == 0
        before = Path("sealed").read_bytes()
        capsys.readouterr()
        assert main([*again, *(["--signer", signer] if signer else [])]) == code
        assert (Path("sealed").read_bytes() == before) == (code == 3)
        assert ("who made the old file was not asked" in capsys.readouterr().err) == (signer is None)


def test_what_a_file_says_stays_on_its_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever could write a file wrote lines of `inspect`, of its origin too."""
    forged = "2\norigin       intact, signed by maker\x1b[2J"
    with seal.Writer(Path("sealed"), recipients_of("me.pub"), public={"v": forged, "a\nb": "c"}) as writer:
        writer.write(b"evil")
    for identity in ([], ["-i", "me"]):
        assert main(["inspect", "sealed", *identity]) == 0
        told = capsys.readouterr().out
        assert not any(line.startswith(("origin       intact, signed", "b")) for line in told.splitlines())
        assert "\x1b" not in told
        assert "2\ufffdorigin" in told


@pytest.mark.parametrize(
    "call", ["seal '' out -r me.pub", "open '' out -i me", "sign '' --key maker", "verify ''", "keygen ''"]
)
def test_no_path_is_not_the_folder_we_are_in(call: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As of a variable that is not set: all that lay there was sealed, the secret keys too."""
    before = sorted(place.iterdir())
    assert main(shlex.split(call)) == 2
    assert re.search("E576 .*an empty path, as of a variable that is not set", capsys.readouterr().err)
    assert sorted(place.iterdir()) == before


@pytest.mark.parametrize(
    "call",
    [
        *("sign - --key maker", "verify -", "obfuscate - -o out --no-map", "obfuscate plain -o - --no-map"),
        *("keygen -", "sign plain --to - --key maker", "inspect -", "rewrap - -i me --add me.pub", "rekey - -i me"),
        *("restore - out --map map -i me", "restore plain - --map map -i me", "unlock plain - --key-file me"),
        *("obfuscate plain -o out --map - -r me.pub", "restore plain out --map - -i me", "trace plain --map - -i me"),
    ],
)
def test_a_stream_is_no_file_of_that_name(call: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file called - was read or written, and the exit code was 0."""
    Path("-").write_bytes(b"plain")
    before = sorted(place.iterdir())
    assert main(shlex.split(call)) == 2
    assert re.search("E576 .* - stands for a stream, and this command takes files", capsys.readouterr().err)
    assert sorted(place.iterdir()) == before
    assert main(["sign", "./-", "--key", "maker"]) == 0


@pytest.mark.parametrize("name", [".", "../folder", "./", "below/.."])
def test_the_folder_we_are_in_is_signed_by_its_name(
    name: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The signature was there, and the command ended as a bug of vambrace."""
    monkeypatch.chdir(place / "folder")
    assert main(["sign", name, "--key", str(place / "maker")]) == 0
    said = re.search("signed; (.*) holds 1 signature", capsys.readouterr().err)
    assert said
    assert Path(said[1]).resolve() == place / "folder.sig"
    assert main(["verify", str(place / "folder"), "--signer", str(place / "maker.pub")]) == 0


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("seal plain LONG -r me.pub", "E601"),
        ("seal plain LONG -r me.pub --force", "E601"),
        ("seal plain LONG/out -r me.pub --force", "E601"),
        ("open sealed LONG/out -i me", "E601"),
        ("open sealed LONG -i me --force", "E766|E601"),
        ("rewrap LONG -i me --add maker", "E776"),
    ],
)
def test_names_that_no_system_takes_are_no_bug(
    call: str, code: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python asks whether they are there with an OSError, as it does behind folders that one may not enter."""
    assert main(["seal", "folder", "sealed", "-r", "me.pub"]) == 0
    before = sorted(place.iterdir())
    capsys.readouterr()
    assert main(shlex.split(call.replace("LONG", "x" * 300))) in {2, 6}
    assert re.search(code, capsys.readouterr().err)
    assert sorted(place.iterdir()) == before


def test_inspect_calls_nothing_intact_that_it_has_not_read(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["seal", "plain", "sealed", "-r", "me.pub", "--sign", "maker", "--name", "Ada"]) == 0
    data = bytearray(Path("sealed").read_bytes())
    data[3 * MIB] ^= 1
    Path("sealed").write_bytes(data)
    capsys.readouterr()
    for more in ([], ["--json"]):
        assert main(["inspect", "sealed", "-i", "me", *more]) == 0
        told = capsys.readouterr().out
        assert "intact" not in told
        assert "Ada" in told
        assert "whether these chunks are it is not checked" in told
    assert main(["verify", "sealed", "-i", "me"]) == 3


@pytest.mark.parametrize("written", [0, 300, None])
def test_a_change_that_was_cut_off_is_said_and_finished(
    written: int | None, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files that hang on another one beside them were called good without a word, and copies of them open nowhere."""
    assert main(["keygen", "bob"]) == main(["keygen", "carol"]) == 0
    assert main(["seal", "plain", "n.sealed", "-r", "me.pub", "-r", "bob.pub", "-r", "carol.pub"]) == 0
    real = files.overwrite

    def cut(fd: int, offset: int, data: bytes, *, path: Path) -> None:
        if written != 0:
            os.pwrite(fd, data[:written], offset)
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "overwrite", cut)
    with pytest.raises(KeyboardInterrupt):
        seal.rewrap("n.sealed", "carol", remove=["me"])
    monkeypatch.setattr(files, "overwrite", real)
    assert Path(".n.sealed.header").exists()
    for call in ("verify n.sealed -i carol", "inspect n.sealed -i carol", "open n.sealed out -i carol --force"):
        capsys.readouterr()
        assert main(shlex.split(call)) == 0
        assert "may open only together with .n.sealed.header beside it" in capsys.readouterr().err
    # By number somebody else would go than who has that number now.
    if written != 0:
        assert main(shlex.split("rewrap n.sealed -i carol")) == 0
        assert "nothing is left to do of the change that was cut off" in capsys.readouterr().err
    else:
        assert main(shlex.split("rewrap n.sealed -i carol --remove 2")) == 2
        assert "which is finished now" in capsys.readouterr().err
    assert not Path(".n.sealed.header").exists()
    assert main(shlex.split("rewrap n.sealed -i carol")) == 2
    assert "nothing to change" in capsys.readouterr().err
    assert main(shlex.split("rewrap n.sealed -i carol --remove 1")) == 0
    assert main(shlex.split("open n.sealed out -i carol --force")) == 0
    assert main(shlex.split("open n.sealed out -i bob --force")) == 3


def test_files_that_do_not_count_are_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a folder to which they were put, verify said that all files had been checked."""
    assert main(["sign", "folder", "--key", "maker"]) == 0
    assert main(["verify", "folder", "--signer", "maker.pub"]) == 0
    assert "not checked" not in capsys.readouterr().err
    Path("folder/below/.evil.1.tmp").write_bytes(b"import os")
    assert main(["verify", "folder", "--signer", "maker.pub"]) == 0
    assert "not checked: files that do not count (below/.evil.1.tmp)" in capsys.readouterr().err


def test_names_steer_no_terminal(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\x1b[31m\u202eX\nintact"
    Path(name).write_bytes(b"1")
    assert main(["sign", name, "--key", "maker"]) == 0
    assert capsys.readouterr().err == "signed; a\ufffd[31m\ufffdX\ufffdintact.sig holds 1 signature\n"


@pytest.mark.parametrize("name", [".", "/"])
def test_a_target_has_a_name(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It ended as a bug of vambrace."""
    assert main(["seal", "plain", "sealed", "-r", "me.pub"]) == 0
    before = sorted(place.iterdir())
    for call in (["seal", "plain", name, "-r", "me.pub"], ["open", "sealed", name, "-i", "me"]):
        assert main([*call, "--force"]) == 6
        assert "E601 EISDIR" in capsys.readouterr().err
    assert main(["verify", "/"]) == 2
    assert sorted(place.iterdir()) == before


@contextlib.contextmanager
def piped(path: Path) -> Generator[str]:
    """A named pipe through which the bytes of `path` come."""
    pipe = path.with_name(f"{path.name}.pipe")
    os.mkfifo(pipe)
    thread = threading.Thread(target=pipe.write_bytes, args=(path.read_bytes(),), daemon=True)
    thread.start()
    yield str(pipe)
    thread.join(10)


@pytest.mark.parametrize(("source", "steps"), [("plain", 10), ("folder", 4)])
def test_files_and_folders_tell_how_far_they_are(source: str, steps: int, place: Path, heard: Heard) -> None:
    assert main(["seal", source, "sealed", "-r", "me.pub"]) == 0
    assert main(["open", "sealed", "again", "-i", "me"]) == 0
    assert heard.works == [["sealing", steps, steps, True], ["opening", steps, steps, True]]
    assert max(heard.steps) < steps  # not all at once at the end, which tells nothing
    if source == "folder":
        assert Path("again/below/c").read_bytes() == Path("folder/below/c").read_bytes()


@pytest.mark.parametrize("signer", [[], ["--signer", "maker.pub"], ["--signer", "maker.pub", "--stream-unverified"]])
def test_streams_tell_what_came_in(signer: list[str], place: Path, heard: Heard) -> None:
    """How much there will be is not known: a total of 0."""
    with piped(Path("plain")) as source:
        assert main(["seal", source, "sealed", "-r", "me.pub", "--sign", "maker"]) == 0
    with piped(Path("sealed")) as source:
        assert main(["open", source, "again", "-i", "me", *signer]) == 0
    assert Path("again").read_bytes() == Path("plain").read_bytes()
    sealed = -(-Path("sealed").stat().st_size // MIB)
    assert heard.works == [["sealing", 0, 10, True], ["opening", 0, sealed, True]]
    assert max(heard.steps) == 1


@pytest.mark.parametrize("identity", [[], ["-i", "me"]])
def test_checking_and_sealing_anew_tell_it_too(identity: list[str], place: Path, heard: Heard) -> None:
    assert main(["seal", "plain", "sealed", "-r", "me.pub", "--sign", "maker"]) == 0
    heard.works.clear()
    assert main(["verify", "sealed", "--signer", "maker.pub", "--threads", "2", *identity]) == 0
    assert main(["rekey", "sealed", "-i", "me", "-r", "me.pub", "--sign", "maker"]) == 0
    assert heard.works == [["verifying", 10, 10, True], ["sealing", 10, 10, True]]
    assert max(heard.steps) < 10


@pytest.mark.parametrize(("source", "steps"), [("plain", 10), ("folder", 4)])
def test_signing_tells_what_was_read(source: str, steps: int, place: Path, heard: Heard) -> None:
    assert main(["sign", source, "--key", "maker"]) == 0
    assert main(["verify", source, "--signer", "maker.pub"]) == 0
    assert heard.works == [["signing", 0, steps, True], ["verifying", 0, steps, True]]
    assert max(heard.steps) == 1


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_weights_beside_a_model_are_not_replaced_by_it(
    link: Callable[[str, str], None] | None, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are in no sealed file, so nothing would be left of them."""
    onnx = pytest.importorskip("onnx")
    weight = onnx.helper.make_tensor("w", 1, [64, 4], bytes(1024), raw=True)
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n,64] x) => (float[n,4] y) { y = MatMul (x, w) }'
    )
    model.graph.initializer.append(weight)
    onnx.save(model, "whole.onnx")
    onnx.save(model, "net.onnx", save_as_external_data=True, location="net.bin", size_threshold=0)
    target = "net.bin" if link is None else "other.bin"
    if link is not None:
        link("net.bin", target)
    before = Path("net.bin").read_bytes()
    assert main(["seal", "net.onnx", target, "-r", "me.pub", "--force"]) == 2
    said = capsys.readouterr().err
    assert "E766" in said
    assert "weights of the model" in said
    assert Path("net.bin").read_bytes() == before
    assert main(["seal", "net.onnx", "net.sealed", "-r", "me.pub"]) == 0
    assert "net.onnx keeps weights in other files (net.bin), which are not sealed with it" in capsys.readouterr().err
    assert main(["seal", "whole.onnx", "whole.sealed", "-r", "me.pub"]) == 0
    assert "weights" not in capsys.readouterr().err
    Path("broken.onnx").write_bytes(b"no model")
    Path("broken.sealed").write_bytes(b"from before")
    assert main(["seal", "broken.onnx", "broken.sealed", "-r", "me.pub", "--force"]) == 0


def test_a_model_is_not_held_in_memory_to_be_sealed_to_a_new_place(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was parsed, which takes twice its size, to find weights that nothing could have replaced."""

    def read(path: Path) -> bytes:
        pytest.fail(f"{path} was read whole")

    monkeypatch.setattr("vambrace.models.onnx_file.file_bytes", read)
    Path("net.onnx").write_bytes(bytes(1000))
    assert main(["seal", "net.onnx", "net.sealed", "-r", "me.pub"]) == 0


def test_an_empty_file_and_an_empty_folder_end_too(place: Path, heard: Heard) -> None:
    Path("empty").write_bytes(b"")
    Path("hollow").mkdir()
    for source in ("empty", "hollow"):
        assert main(["seal", source, f"{source}.sealed", "-r", "me.pub"]) == 0
        assert main(["open", f"{source}.sealed", f"{source}.again", "-i", "me"]) == 0
    assert ["opening", 1, 1, True] in heard.works  # the folder's list of files
    assert all(work[3] for work in heard.works)


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")
def test_on_a_terminal_there_is_a_bar(place: Path) -> None:
    from cli.terminal import in_terminal

    assert main(["seal", "folder", "folder.sealed", "-r", "me.pub"]) == 0
    code, shown = in_terminal(["open", "folder.sealed", "again", "-i", "me"], columns=80, folder=place)
    assert code == 0
    assert re.search(r"\r\x1b\[2Kopening +[#-]{20} \d/4 ", shown)
    assert main(["seal", "plain", "plain.sealed", "-r", "me.pub"]) == 0
    with piped(Path("plain.sealed")) as source:
        code, shown = in_terminal(["open", source, "streamed", "-i", "me"], columns=80, folder=place)
    assert code == 0
    assert re.search(r"\r\x1b\[2Kopening +\ds so far", shown)
    assert "intact, origin not proven" in shown


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
@pytest.mark.parametrize("command", [["open", "-", "again", "-i", "me"], ["seal", "-", "sealed", "-r", "me.pub"]])
def test_whoever_is_told_to_end_leaves_nothing_that_was_half_written(
    command: list[str], number: signal.Signals, place: Path
) -> None:
    """`kill`, and a terminal that closed, left what `open` had verified by then in a hidden file, in clear."""
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("what the tests ignore, as under nohup, their children ignore too")
    (place / "big").write_bytes(os.urandom(3 * 2**20))
    assert main(["seal", "big", "big.sealed", "-r", "me.pub"]) == 0
    before = set(place.iterdir())
    given = (place / "big.sealed").read_bytes()[: 5 * 2**19]
    process = subprocess.Popen(
        [sys.executable, "-m", "vambrace", *command], cwd=place, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(given)
    process.stdin.flush()
    while not any(each.stat().st_size for each in set(place.iterdir()) - before):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    process.stdin.close()  # Python hears a signal that came just before it waited for input only when that comes
    assert process.wait(60) == 128 + number
    assert process.stderr is not None
    assert process.stderr.read().decode() == ("interrupted\n" if number == signal.SIGINT else "stopped\n")
    assert set(place.iterdir()) == before
    process.stderr.close()


COMMANDS = {
    "seal": ["seal", "plain", "made", "-r", "me.pub"],
    "seal a stream": ["seal", "PIPE", "made", "-r", "me.pub"],
    "open": ["open", "sealed", "made", "-i", "me"],
    "open a stream": ["open", "PIPE", "made", "-i", "me"],
    "open MindSpore's": ["open", "minds", "made", "--mindspore", "key"],
    "rekey": ["rekey", "sealed", "-i", "me", "-r", "me.pub"],
    "unlock": ["unlock", "locked.onnx", "made", "--key-file", "lock"],
}


@pytest.mark.parametrize("case", ["seal", "seal a stream", "open", "open a stream", "open MindSpore's"])
@pytest.mark.parametrize("force", [False, True])
def test_what_appears_at_the_target_meanwhile_stays_unless_forced(
    case: str, force: bool, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody else's file was replaced, with exit code 0."""
    Path("key").write_bytes(bytes(16))
    Path("minds").write_bytes(of_mindspore())
    assert main(["seal", "plain", "sealed", "-r", "me.pub"]) == 0
    fsync = files.system.fsync

    def late(number: int) -> None:
        if not Path("made").exists():
            Path("made").write_bytes(b"precious")
        fsync(number)

    monkeypatch.setattr(files.system, "fsync", late)
    with (
        piped(Path("plain" if case.startswith("seal") else "sealed"))
        if "PIPE" in COMMANDS[case]
        else (contextlib.nullcontext("")) as pipe
    ):
        command = [pipe if each == "PIPE" else each for each in COMMANDS[case]]
        assert main([*command, *["--force"] * force]) == (0 if force else 2)
    assert ("E766" in capsys.readouterr().err) is not force
    assert (Path("made").read_bytes() == b"precious") is not force
    assert not list(place.glob("*.tmp"))


@pytest.mark.parametrize(
    "more",
    [
        ["--signer", "maker.pub"],
        ["-i", "me"],
        ["-p"],
        ["--passphrase-env", "WORD"],
        ["--passphrase-fd", "0"],
        ["--stream-unverified"],
        ["--ignore-expiry"],
    ],
    ids=" ".join,
)
def test_what_a_file_of_mindspore_has_not_cannot_be_asked_of_it(
    more: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It opened, with exit code 0, though the signer that was demanded had not signed it."""
    Path("key").write_bytes(bytes(16))
    Path("minds").write_bytes(of_mindspore())
    assert main(["open", "minds", "made", "--mindspore", "key", *more]) == 2
    assert re.search("E712 --mindspore with --(identity|passphrase|s|ignore)", capsys.readouterr().err)
    assert not (place / "made").exists()


def of_mindspore() -> bytes:
    """A file as MindSpore encrypts it, with a key of 16 zeros."""
    iv, text = bytes(16), AESGCM(bytes(16)).encrypt(bytes(16), b"weights", None)
    body = struct.pack("<i", 16) + iv + struct.pack("<i", len(text) - 16) + text[:-16]
    return struct.pack("<I", 0x7F3A5ED8) + text[-16:] + struct.pack("<i", len(body)) + body


@pytest.mark.parametrize("case", COMMANDS)
def test_every_command_that_makes_a_file_cleans_up_when_told_to_end(
    case: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there just before the file has its name would stay in clear."""
    if case == "unlock":
        onnx = pytest.importorskip("onnx")
        model = onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 17]> g (float[n,64] x) => (float[n,4] y) { y = MatMul (x, w) }'
        )
        model.graph.initializer.append(onnx.helper.make_tensor("w", 1, [64, 4], os.urandom(1024), raw=True))
        assert main(["keygen", "lock", "--kind", "aes256"]) == 0
        onnx.save(lock(model, key_bytes(Path("lock"))), "locked.onnx")
    Path("key").write_bytes(bytes(16))
    Path("minds").write_bytes(of_mindspore())
    assert main(["seal", "plain", "sealed", "-r", "me.pub"]) == 0
    heard: list[object] = []
    true = files.system.replace

    def watched(source: Path, target: Path) -> None:
        heard.extend(signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP))
        true(source, target)

    monkeypatch.setattr(files.system, "replace", watched)
    source = Path("plain" if case.startswith("seal") else "sealed")
    with piped(source) if "PIPE" in COMMANDS[case] else contextlib.nullcontext("") as pipe:
        assert main([pipe if each == "PIPE" else each for each in COMMANDS[case]]) == 0
    assert len(heard) == 2
    assert signal.SIG_DFL not in heard


def test_what_was_finished_by_the_way_is_said(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who had been removed by it was out, and "0 gone" was all that was said."""
    assert main(["keygen", "bob"]) == main(["keygen", "carol"]) == 0
    assert main(["seal", "plain", "n.sealed", "-r", "me.pub"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(files, "overwrite", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            seal.rewrap("n.sealed", "me", "bob.pub")
    capsys.readouterr()
    assert main(shlex.split("rewrap n.sealed -i me --add carol.pub")) == 0
    assert "a change that was cut off before was finished first" in capsys.readouterr().err
    assert main(shlex.split("open n.sealed out -i me --force")) == 3
    assert main(shlex.split("rewrap n.sealed -i carol --add me.pub")) == 0
    assert "was finished first" not in capsys.readouterr().err

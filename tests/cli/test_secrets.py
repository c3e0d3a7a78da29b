"""Passphrases on the command line: the one that opens, and the one that is to open, each from where it is said."""

from __future__ import annotations

import base64
import functools
import getpass
import io
import os
import signal
import sys
from pathlib import Path

import pytest

from onnx_nets import net
from vambrace.assets import seal
from vambrace.assets.seal import passphrase
from vambrace.assets.seal.passphrase import Argon2id
from vambrace.cli.main import main
from vambrace.cli.streams import path_text
from vambrace.errors import ArtifactRefused

OLD, NEW = "old horse", "new battery"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    cheap = functools.partial(Argon2id, memory_kib=8192, passes=1, lanes=1)
    monkeypatch.setattr(passphrase, "Argon2id", cheap)
    Path("plain").write_bytes(b"content")
    assert main(["keygen", "me"]) == 0
    return tmp_path


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is typed on a terminal, as (how the prompt begins, the answer), in order."""
    answers: list[tuple[str, str]] = []

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def ask(prompt: str, stream: object = None) -> str:
        wanted, answer = answers.pop(0)
        assert prompt.startswith(wanted)
        return answer

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(getpass, "getpass", ask)
    return answers


def test_what_a_terminal_sends_in_another_encoding(
    typed: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ended as a bug of vambrace, with a part of the passphrase."""

    def ask(prompt: str, stream: object = None) -> str:
        return b"caf\xe9 pass".decode()

    monkeypatch.setattr(getpass, "getpass", ask)
    capsys.readouterr()
    assert main(["seal", "plain", "sealed", "--passphrase"]) == 2
    said = capsys.readouterr().err
    assert "E773 a passphrase that is no" in said
    assert "xe9" not in said
    assert not Path("sealed").exists()


def test_bytes_that_are_no_text_at_the_prompt(typed: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]) -> None:
    """As Python reads them where the locale is none: as halves of characters."""
    typed += [("Passphrase: ", "caf\udce9"), ("The same again: ", "caf\udce9")]
    assert main(["seal", "plain", "sealed", "--passphrase"]) == 2
    assert "E735" in capsys.readouterr().err


def test_a_key_path_asks_no_service(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "vambrace.assets.seal.aws", None)
    assert path_text("aws-kms:alias/models") == "aws-kms:alias/models"
    assert path_text(None) is None


@pytest.mark.parametrize(("length", "code"), [(4094, 0), (4095, 2)])
def test_what_a_terminal_would_cut(
    length: int, code: int, typed: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """What was typed beyond was dropped without a word."""
    typed += [("Passphrase: ", "x" * length), ("The same again: ", "x" * length)]
    assert main(["seal", "plain", "sealed", "--passphrase"]) == code
    assert ("of which a terminal drops the rest" in capsys.readouterr().err) == bool(code)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_signal_at_the_prompt_leaves_the_terminal_as_it_was(
    number: signal.Signals, typed: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python ended at once, and nothing of what was typed afterwards showed."""
    steps: list[str] = []

    def ask(prompt: str, stream: object = None) -> str:
        try:
            signal.raise_signal(number)
            return "word"
        finally:
            steps.append("shows again")

    monkeypatch.setattr(getpass, "getpass", ask)
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as ended:
            main(["seal", "plain", "sealed", "--passphrase"])
    finally:
        signal.signal(number, before)
    assert ended.value.code == 128 + number
    assert steps == ["shows again"]


def opens(identity: object) -> bool:
    try:
        return seal.load("sealed", identity=identity) == b"content"
    except ArtifactRefused:
        return False


def word(value: str) -> object:
    return passphrase.Passphrase(value)


def sealed_by(monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    monkeypatch.setenv("OLD", OLD)
    assert main(["seal", "plain", "sealed", "--passphrase-env", "OLD", *more]) == 0
    monkeypatch.setenv("OLD", OLD)
    monkeypatch.setenv("NEW", NEW)


ENVIRONMENT = ["--passphrase-env", "OLD", "--new-passphrase-env", "NEW"]


def test_a_passphrase_is_added(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    sealed_by(monkeypatch, "-r", "me.pub")
    assert main(["rewrap", "sealed", *ENVIRONMENT]) == 0
    assert "3 recipients now, 1 new, 0 gone" in capsys.readouterr().err
    assert opens(word(OLD))
    assert opens(word(NEW))
    assert opens("me")
    assert "OLD" not in os.environ
    assert "NEW" not in os.environ


def test_a_passphrase_takes_the_place_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    sealed_by(monkeypatch)
    assert main(["rewrap", "sealed", *ENVIRONMENT, "--remove", "1"]) == 0
    assert opens(word(NEW))
    assert not opens(word(OLD))


def test_a_passphrase_beside_those_who_replace_all(monkeypatch: pytest.MonkeyPatch) -> None:
    sealed_by(monkeypatch)
    assert main(["rewrap", "sealed", *ENVIRONMENT, "-r", "me.pub"]) == 0
    assert opens("me")
    assert opens(word(NEW))
    assert not opens(word(OLD))


def test_a_key_gives_way_to_a_passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["seal", "plain", "sealed", "-r", "me.pub"]) == 0
    monkeypatch.setenv("NEW", NEW)
    assert main(["rekey", "sealed", "-i", "me", "--new-passphrase-env", "NEW"]) == 0
    assert opens(word(NEW))
    assert not opens("me")


def test_a_new_key_for_the_content_under_another_passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    sealed_by(monkeypatch)
    assert main(["rekey", "sealed", *ENVIRONMENT, "-r", "me.pub"]) == 0
    assert opens(word(NEW))
    assert opens("me")
    assert not opens(word(OLD))


@pytest.mark.parametrize("command", ["rewrap", "rekey"])
def test_both_typed(command: str, typed: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    sealed_by(monkeypatch)
    typed += [("Passphrase: ", OLD), ("New passphrase: ", NEW), ("The same again: ", NEW)]
    assert main([command, "sealed", "-p", "--new-passphrase"]) == 0
    assert not typed
    assert opens(word(NEW))
    assert opens(word(OLD)) == (command == "rewrap")


def test_a_slip_changes_nothing(
    typed: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sealed_by(monkeypatch)
    before = Path("sealed").read_bytes()
    typed += [("Passphrase: ", OLD), ("New passphrase: ", NEW), ("The same again: ", NEW + "x")]
    assert main(["rewrap", "sealed", "-p", "--new-passphrase"]) == 2
    told = capsys.readouterr().err
    assert "E773 two different passphrases" in told
    assert "--new-passphrase-fd" in told
    assert NEW not in told
    assert Path("sealed").read_bytes() == before


def test_both_from_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first line opens, the second one will."""
    sealed_by(monkeypatch)
    Path("words").write_text(f"{OLD}\n{NEW}\n")
    with Path("words").open("rb") as stream:
        number = str(stream.fileno())
        assert main(["rewrap", "sealed", "--passphrase-fd", number, "--new-passphrase-fd", number]) == 0
    assert opens(word(NEW))


def test_a_line_that_is_too_long_is_not_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its rest would have been the new passphrase."""
    sealed_by(monkeypatch)
    before = Path("sealed").read_bytes()
    Path("words").write_text(f"{'w' * 2**20}rest\n")
    with Path("words").open("rb") as stream:
        number = str(stream.fileno())
        assert main(["rewrap", "sealed", "--passphrase-fd", number, "--new-passphrase-fd", number]) == 2
    assert "E773 a first line of more than 1048576 bytes" in capsys.readouterr().err
    assert Path("sealed").read_bytes() == before


@pytest.mark.parametrize("command", ["rewrap", "rekey"])
def test_it_is_said_what_is_missing(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["seal", "plain", "sealed", "-r", "me.pub"]) == 0
    assert main([command, "sealed", "-i", "me", "--new-passphrase-env", "NOTHING"]) == 2
    told = capsys.readouterr().err
    assert "E773 no variable of the given name" in told
    assert "--new-passphrase-env NAME" in told
    assert main([command, "sealed", "-i", "me", "--new-passphrase", "--new-passphrase-fd", "0"]) == 2
    assert "E773 more than one place" in capsys.readouterr().err
    assert main([command, "sealed", "-i", "me"]) == 2
    told = capsys.readouterr().err
    assert ("E751 nothing to change" if command == "rewrap" else "E772 nobody") in told
    assert "--new-passphrase" in told or command == "rewrap"


@pytest.mark.parametrize(
    "secret", ["correct horse", "me/correct horse", "correct horse " * 40, "vambrace-secret-key/2 x"]
)
@pytest.mark.parametrize(
    "command",
    [
        ["inspect", "sealed", "-i"],
        ["open", "sealed", "out", "-i"],
        ["open", "sealed", "out", "--mindspore"],
        ["open", "sealed", "out", "--passphrase-env"],
        ["open", "sealed", "out", "-i", "me", "--signer"],
        ["seal", "plain", "out", "-r"],
        ["seal", "plain", "out", "-r", "me.pub", "--sign"],
        ["rewrap", "sealed", "-i", "me", "--add"],
        ["rewrap", "sealed", "-i", "me", "--remove"],
    ],
    ids=" ".join,
)
def test_a_secret_in_the_place_of_a_key_is_not_repeated(
    command: list[str], secret: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Errors go into logs. What is no file there may be a passphrase or a key."""
    assert main(["seal", "plain", "sealed", "-r", "me.pub"]) == 0
    capsys.readouterr()
    assert main([*command, secret]) == 2
    told = capsys.readouterr().err
    assert told.startswith("E7")
    assert "correct horse" not in told
    assert "vambrace-secret-key" not in told


@pytest.mark.parametrize(
    "command",
    [
        ["obfuscate", "n.onnx", "-o", "x.onnx", "-r", "me.pub", "--key-file"],
        ["obfuscate", "n.onnx", "-o", "x.onnx", "-r", "me.pub", "--customer", "a", "--owner-key"],
        ["unlock", "n.onnx", "x.onnx", "--key-file"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("part", ["base64", "kind and base64", "hexadecimal", "in quotes", "slashes"])
def test_a_key_without_its_first_word_is_not_repeated(
    command: list[str], part: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As whoever cuts it out of its file may type it."""
    Path("n.onnx").write_bytes(net("(float[n,4] x) => (float[n,4] y) { y = MatMul (x, w) }", weights={"w": (4, 4)})
                               .SerializeToString())  # fmt: skip
    assert main(["keygen", "owner", "--kind", "aes256"]) == 0
    first, kind, spelt = Path("owner").read_text().split()
    assert first == "vambrace-secret-key/1"
    typed = {
        "base64": spelt,
        "kind and base64": f"{kind} {spelt}",
        "hexadecimal": base64.b64decode(spelt).hex(),
        "in quotes": f'"{spelt}",',
        "slashes": "TVRJDVIT4lkRVk8TnrAkyh06gYwpBa9k6w//cESKOtk=",  # of which a path keeps one
    }[part]
    capsys.readouterr()
    assert main([*command, typed]) == 2
    said = capsys.readouterr()
    assert "E853 what may be a key in place of its path" in said.err
    assert spelt[:20] not in said.err + said.out
    assert typed[:20] not in said.err + said.out


@pytest.mark.parametrize("option", ["-r", "-i", "--sign=", "--key-file="])
def test_a_key_that_is_glued_to_an_option_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["seal", "plain", "out", option + Path("me").read_text().strip()]) == 2
    assert "E772" in capsys.readouterr().err


def test_a_folder_may_be_called_as_a_key_begins(place: Path) -> None:
    Path("vambrace-secret-key").mkdir()
    for name in ("vambrace-secret-key/new", "./vambrace-secret-key/1", str(place / "vambrace-secret-key/2")):
        assert main(["keygen", name]) == 0


@pytest.mark.parametrize("command", ["assess", "check"])
def test_what_is_typed_in_the_place_of_a_key_is_not_repeated(
    command: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It stood in the error, and so in the logs of who gates on it."""
    assert main(["seal", "plain", "net.sealed", "-r", "me.pub"]) == 0
    secret = Path("me").read_text().strip()
    for typed, code in (("correct horse battery", "E724"), (secret, "E772")):
        capsys.readouterr()
        assert main([command, "--model", "net.sealed", "--identity", typed, "--data", "digits"]) == 2
        said = capsys.readouterr()
        assert code in said.err
        assert typed not in said.err + said.out


@pytest.mark.parametrize("command", ["assess", "check"])
@pytest.mark.parametrize("option", ["--signer", "--identity"])
def test_a_demand_that_is_not_said_is_no_demand_that_is_met(
    option: str, command: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a variable that is not set: an unsigned model passed."""
    assert main(["seal", "plain", "net.sealed", "-r", "me.pub"]) == 0
    assert main([command, "--model", "net.sealed", "--identity", "me", option, "", "--data", "digits"]) == 2
    assert "an empty path, as of a variable that is not set" in capsys.readouterr().err

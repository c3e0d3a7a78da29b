"""Keys of commands on sealed files: made, named, never replaced, and never typed."""

from __future__ import annotations

import errno
import shlex
import signal
from pathlib import Path

import pytest

from vambrace.assets.seal import keys
from vambrace.cli import sealing
from vambrace.cli.main import main
from vambrace.core import files
from vambrace.errors import ResourceError


@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_key_that_is_not_finished_leaves_nothing_of_it(
    call: int, number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its secret stayed in a hidden file."""
    monkeypatch.chdir(tmp_path)
    real, count = files.system.fsync, 0

    def told(fd: int) -> None:
        nonlocal count
        count += 1
        if count == call:
            signal.raise_signal(number)
        real(fd)

    monkeypatch.setattr(files.system, "fsync", told)
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as ended:
            main(["keygen", "me"])
        assert ended.value.code == 128 + number
    finally:
        signal.signal(number, before)
    assert [each.name for each in tmp_path.iterdir()] == ([] if call == 1 else ["me"])


def test_a_key_that_cannot_be_said_is_there_with_its_public_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The public one was missing, and a second try found the name taken."""
    monkeypatch.chdir(tmp_path)

    def full(_text: str) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(sealing, "tell", full)
    assert main(["keygen", "me"]) != 0
    assert sorted(each.name for each in tmp_path.iterdir()) == ["me", "me.pub"]


def test_a_secret_key_without_its_public_part_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    real = keys.write

    def full(path: Path, key: keys.Secret | keys.Public) -> None:
        if path.suffix == ".pub":
            raise ResourceError("E601", seen="ENOSPC", expected="room", fix="make room")
        real(path, key)

    monkeypatch.setattr(keys, "write", full)
    assert main(["keygen", "me"]) == 6
    said = capsys.readouterr()
    assert "me, the secret key, was written alone: remove it before you try again" in said.err
    assert not said.out
    assert [each.name for each in tmp_path.iterdir()] == ["me"]


def test_no_secret_key_is_replaced_by_what_it_would_open(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`seal net.onnx model -r model.pub --force` put the file in the place of the only key that opens it."""
    secret = Path("me").read_bytes()
    for call in ("seal plain me -r me.pub --force", "seal plain maker -r me.pub --force"):
        assert main(shlex.split(call)) == 2
        assert "E766" in capsys.readouterr().err
    assert Path("me").read_bytes() == secret


def test_who_is_named_twice_counts_once(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twice = ["-r", "me.pub", "-r", "me.pub"]
    assert main(["seal", "plain", "sealed", *twice]) == 0
    assert "for 1 recipient\n" in capsys.readouterr().err
    assert main(["seal", "plain", "sealed", "-r", "me", "-r", "./me.pub", "-r", "me.pub", "--force"]) == 0
    assert "for 1 recipient\n" in capsys.readouterr().err
    assert main(["rekey", "sealed", "-i", "me", *twice]) == 0
    assert "for 1 recipient," in capsys.readouterr().err


@pytest.mark.parametrize("name", [".", "/"])
@pytest.mark.parametrize("kind", ["x25519", "aes256"])
def test_a_key_has_a_name(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ended as a bug of vambrace."""
    monkeypatch.chdir(tmp_path)
    assert main(["keygen", name, "--kind", kind]) == 2
    assert "E722" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["seal", "plain", "lock", "-r", "lock"], "lock"),
        (["seal", "plain", "./me.pub", "-r", "me.pub"], "me.pub"),
        (["seal", "plain", "maker", "-r", "me.pub", "--sign", "maker"], "maker"),
        (["open", "sealed", "me", "-i", "me"], "me"),
        (["open", "sealed", "maker.pub", "-i", "me", "--signer", "maker.pub"], "maker.pub"),
        (["open", "sealed", "lock", "--mindspore", "lock"], "lock"),
    ],
)
def test_a_key_is_never_replaced_by_what_it_is_for(
    words: list[str], key: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keygen", "lock", "--kind", "aes256"]) == 0
    assert main(["seal", "plain", "sealed", "-r", "me.pub", "--sign", "maker"]) == 0
    before = Path(key).read_bytes()
    assert main([*words, "--force"]) == 2
    assert "E766" in capsys.readouterr().err
    assert Path(key).read_bytes() == before


@pytest.mark.parametrize(
    "call",
    [
        "seal plain out -r ''",
        "open sealed out -i ''",
        "verify sealed --signer '' -i me",
        "seal plain out -r me.pub --sign ''",
        "rewrap sealed -i me --add ''",
        "sign plain --key ''",
        "verify plain --signature ''",
        "open sealed out --mindspore ''",
    ],
)
def test_no_key_is_at_a_path_of_a_variable_that_is_not_set(
    call: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was "IsADirectoryError reading ."."""
    assert main(["seal", "plain", "sealed", "-r", "me.pub", "--force"]) == 0
    capsys.readouterr()
    assert main(shlex.split(call)) == 2
    assert "an empty path, as of a variable that is not set" in capsys.readouterr().err


@pytest.mark.parametrize(
    "call",
    [
        "seal plain out -r me.pub --sign SECRET",
        "sign plain --key SECRET",
        "verify sealed --signer SECRET",
        "open sealed out -i me --signer SECRET",
        "rewrap sealed -i me --remove SECRET",
        "rekey sealed -i me -r me.pub --sign SECRET",
        "obfuscate net.onnx -o out.onnx --no-map --key-file SECRET",
        "seal plain out -r SECRET",
        "open sealed out --identity=SECRET",
        "open sealed out -i UNQUOTED",
        "seal UNQUOTED",
        "open SECRET out -i me",
        "verify sealed --signature SECRET",
        "sign SECRET --key maker",
        "keygen SECRET",
        "SECRET",
    ],
)
def test_a_secret_key_that_was_typed_is_called_known(
    call: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody said that it stands in the history of the shell now."""
    assert main(["seal", "plain", "sealed", "-r", "me.pub", "--force"]) == 0
    capsys.readouterr()
    secret = Path("maker").read_text().strip()
    assert main(shlex.split(call.replace("UNQUOTED", secret).replace("SECRET", shlex.quote(secret)))) == 2
    said = capsys.readouterr().err
    assert said.startswith("E772 ")
    assert secret.split()[-1] not in said

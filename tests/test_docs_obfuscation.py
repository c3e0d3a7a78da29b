"""The page about obfuscation: its code runs, and its tables are the code's."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

import onnx_nets
from vambrace.assets import obfuscate
from vambrace.assets.obfuscate.net import Net
from vambrace.assets.obfuscate.passes import pass_class, pass_names
from vambrace.assets.obfuscate.passes.oneway import OneWay
from vambrace.assets.obfuscate.program_passes import PASSES
from vambrace.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).resolve().parents[1] / "docs" / "assets" / "obfuscation.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def rows() -> list[list[str]]:
    """The table of passes."""
    part = TEXT.split("\n## Passes\n")[1].split("\n## ")[0]
    found = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in part.splitlines() if "|" in line]
    return [row for row in found[2:] if row[0].startswith("`")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    model = onnx_nets.residual()
    onnx.save(model, "net.onnx")
    (array,) = onnx_nets.feeds(model, rows=40).values()
    np.save("inputs.npy", array)
    return tmp_path


def lines(*, measured: bool) -> Iterator[tuple[str, str]]:
    """What the page tells to type: parts of Python, and commands one by one; those that measure take long."""
    for language, code in BLOCKS:
        if language == "python":
            yield "python", code
        else:
            for line in code.splitlines():
                if measured or "--data" not in line:
                    yield "bash", line


def played(*, measured: bool) -> dict[str, int]:
    names: dict[str, Any] = {}
    codes: dict[str, int] = {}
    for language, code in lines(measured=measured):
        if language == "python":
            exec(compile(code, PAGE.name, "exec"), names)  # our own page
        else:
            codes[code] = main(shlex.split(code)[1:])
    assert names["again"].kept is not None
    assert names["program"].difference.max_abs == 0
    (known,) = onnx_nets.answers(onnx.load("net.onnx"), {"x": np.load("inputs.npy")})
    assert np.array_equal(names["answers"][0], known)
    assert names["in_order"] == onnx.load("net.onnx")
    return codes


def test_code_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [language for language, _ in BLOCKS].count("python") == 4
    codes = played(measured=False)
    assert len(codes) == 10
    assert set(codes.values()) == {0}
    said = capsys.readouterr()
    assert "this is the original" in said.err
    assert "this is the copy of bob" in said.err
    assert onnx.load("back.onnx") == Net.load("net.onnx").model()


@pytest.mark.slow
def test_what_is_measured_runs_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codes = played(measured=True)
    (measured,) = [line for line in codes if "--data" in line]
    assert codes[measured] in {0, 1}
    assert "equality" in capsys.readouterr().out
    assert "not encryption" in Path("report.html").read_text(encoding="utf-8")


def test_what_is_fed_in_place_of_a_key_is_as_said(folder: Path) -> None:
    taking = obfuscate.lock_by_input("net.onnx", bytes(32))
    name, tensor = obfuscate.key_tensor(taking, bytes(32))
    rows = np.load("inputs.npy")
    (right,) = onnx_nets.answers(taking, {"x": rows, name: tensor})
    for runs in (np.zeros_like(tensor), obfuscate.key_tensor(taking, bytes([1]) * 32)[1]):
        (wrong,) = onnx_nets.answers(taking, {"x": rows, name: runs})
        assert not np.allclose(wrong, right)
    said = re.findall(r"onnxruntime refuses at the call \(`(.*?)`\)", TEXT)
    for bad, why in ((tensor + 1000, said[0]), (tensor[:-1], "Got invalid dimensions")):
        with pytest.raises(Exception, match=why):  # the runtime's errors share no base class
            onnx_nets.answers(taking, {"x": rows, name: bad})


def test_half_precision_cannot_hold_the_bound() -> None:
    step = float(np.finfo(np.float16).eps)
    assert "5e-4 to 1e-3 of their value" in TEXT
    assert (round(step / 2, 4), round(step, 3)) == (5e-4, 1e-3)


def test_every_pass_has_its_row() -> None:
    assert sorted(row[0].strip("`") for row in rows()) == list(obfuscate.pass_names())


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_a_pass_is_what_its_row_says(row: list[str]) -> None:
    kind = pass_class(row[0].strip("`"))
    assert kind.profile == row[1]
    assert row[4] == ("no" if issubclass(kind, OneWay) else "yes")


def test_passes_of_programs_are_named() -> None:
    part = TEXT.split("\n## Programs of torch.export\n")[1].split("\n## ")[0]
    named = {name for name in re.findall(r"`(\w+)`", part) if name in obfuscate.pass_names()}
    assert named == PASSES - {"metadata"}


def test_it_is_never_called_encryption() -> None:
    assert "It is not encryption." in TEXT.split("\n\n")[1]
    for word in re.findall(r"[^.]*encrypt[^.]*\.", TEXT):
        assert "not encryption" in word


def test_every_record_has_its_row() -> None:
    """Of four passes nobody could have read a map by its page."""
    page = Path(__file__).parents[1].joinpath("docs/formats/obfuscation-map-v1.md").read_text(encoding="utf-8")
    kept = {name for name in pass_names() if not issubclass(pass_class(name), OneWay)}
    rows = {
        name
        for line in page.splitlines()
        if line.startswith("| `")
        for name in re.findall("`(\\w+)`", line.split("|")[1])
    }
    assert kept
    assert kept <= rows

"""Flags as tables; and commands that take them in groups."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
import typer
from typer.testing import CliRunner

from vambrace.cli.flags import ContractFlags, RunFlags, SourceFlags, is_code, numbers
from vambrace.cli.helping import Command
from vambrace.cli.spreading import flagged
from vambrace.errors import ConfigError


def test_what_is_not_given_is_not_said() -> None:
    assert SourceFlags().table() == ContractFlags().table() == RunFlags().table() == RunFlags().given() == {}


def test_tables() -> None:
    source = SourceFlags(model="a.pt", factory="m.n:net", data="val", members="m:fn", limit=3, labels="l")
    assert source.table() == {
        "model": {"source": "a.pt", "factory": "m.n:net"},
        "data": {"eval": {"source": "val"}, "members": {"source": "m:fn"}},
        "trust": {"code": ["m"]},
        "limit": 3,
        "labels": "l",
    }
    run = RunFlags(profile="ci", seed=0, images=0, out="x")
    assert run.table() == {"profile": "ci", "seed": 0, "run": {"images": 0, "out": "x"}}
    assert run.given() == {"profile": "ci", "seed": 0, "images": 0, "out": "x"}
    assert ContractFlags(bounds="0, 1", strip_prefix="").table() == {
        "contract": {"bounds": ["0", "1"], "strip_prefix": ""}
    }


def test_numbers() -> None:
    assert numbers(None, "--x") is None
    assert numbers("1/255, .5", "--mean") == ["1/255", ".5"]
    assert numbers("28,28", "--size", whole=True) == numbers("28x28", "--size", whole=True) == [28, 28]
    for wrong in ("28", "28,2.5", "-1,2", "²,3", ""):
        if wrong == "28":
            assert numbers(wrong, "--size", whole=True) == [28]
            continue
        with pytest.raises(ConfigError, match=r"E571: --size"):
            numbers(wrong, "--size", whole=True)


@pytest.mark.parametrize(
    ("source", "code"),
    [("a.b:c", True), ("a:c", True), ("digits:test", False), ("C:\\data", False), ("a/b:c", False), ("a:", False)],
)
def test_is_code(source: str, code: bool) -> None:
    assert is_code(source) is code


def test_classes(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    names = {"contract": {"classes": ["cat", "dog", "été"]}}
    for text in ("cat\n dog \nété\n", "cat\r\ndog\r\nété", "\ufeffcat\ndog\nété\n\n \t\n"):
        file.write_bytes(text.encode())
        assert ContractFlags(classes=file).table() == names
    file.write_text("a\u2028b\x0cc\nd", encoding="utf-8")
    assert ContractFlags(classes=file).table() == {"contract": {"classes": ["a\u2028b\x0cc", "d"]}}
    file.write_bytes(b"\xff\xfe\x00")
    for path, words in ((file, "not UTF-8"), (tmp_path, "directory"), (tmp_path / "none", "No such file")):
        with pytest.raises(ConfigError, match=words) as caught:
            ContractFlags(classes=path).table()
        assert caught.value.code == "E572"


@pytest.mark.parametrize(
    ("text", "seen", "fix"),
    [
        ("cat\n\ndog\n", "line 2 is blank", "remove line 2, or write the name of class 1"),
        ("\ncat\ndog", "line 1 is blank", "remove line 1, or write the name of class 0"),
        ("cat\ndog\n \t\nowl\n\n", "line 3 is blank", "remove line 3"),
        ("cat\ndog\nowl\n dog\n", "'dog' in lines 2 and 4", "correct line 4"),
        ("", "it is empty", "leave --classes out"),
        ("\n \n", "it is empty", "leave --classes out"),
    ],
)
def test_classes_never_shift(tmp_path: Path, text: str, seen: str, fix: str) -> None:
    """The line is the label: what is not a name is refused, and never skipped."""
    file = tmp_path / "names.txt"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        ContractFlags(classes=file).table()
    assert caught.value.code == "E572"
    assert caught.value.seen == f"{file}: {seen}"
    assert fix in caught.value.fix


def test_groups_become_options_and_come_back_as_dataclasses() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Fruit:
        TITLE: ClassVar[str] = "Fruit and such"
        apple: Annotated[int, typer.Option(help="How many.")] = 1
        pear: Annotated[str | None, typer.Option(help="Which.")] = None

    taken: list[object] = []
    app = typer.Typer(rich_markup_mode=None)

    def eat(pear: Annotated[str, typer.Argument()], *, fruit: Fruit, fast: bool = False) -> None:
        """Eat PEAR."""
        taken.extend([pear, fruit, fast])

    eat.__annotations__["fruit"] = Fruit
    app.command(cls=Command)(flagged(eat))
    runner = CliRunner()
    assert runner.invoke(app, ["conference", "--apple", "3", "--fast"]).exit_code == 0
    assert taken == ["conference", Fruit(apple=3), True]
    shown = runner.invoke(app, ["--help"]).output
    assert "Fruit and such:\n  --apple INTEGER  How many." in shown
    assert "--pear" not in shown
    assert "Eat PEAR" in shown

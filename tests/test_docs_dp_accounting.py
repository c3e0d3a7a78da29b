"""The page about accounting: its code runs, its commands parse, and its numbers are the code's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
import typer

from vambrace.cli.main import app
from vambrace.privacy.dp import accounting, charges

PAGE = Path(__file__).resolve().parents[1] / "docs" / "privacy" / "dp-accounting.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def first_cells(heading: str) -> set[str]:
    section = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    return set(re.findall(r'^\| `"(\w+)"` \|', section, re.MULTILINE))


def test_code_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    parts = blocks("python")
    assert len(parts) >= 6
    for number, part in enumerate(parts):
        exec(compile(part, f"{PAGE.name}, block {number}", "exec"), names)
    assert "Privacy statement: epsilon 2.39" in capsys.readouterr().out


@pytest.mark.parametrize("line", [line for part in blocks("bash") for line in part.splitlines()])
def test_commands_parse(line: str) -> None:
    words = line.split()
    group = typer.main.get_command(app)
    assert words[:2] == ["vambrace", "dp"]
    commands = group.commands["dp"].commands  # type: ignore[attr-defined]
    commands[words[2]].make_context(words[2], words[3:], resilient_parsing=False)


def test_tables_name_everything() -> None:
    assert first_cells("Which accountant when") == set(get_args(accounting.Accountant))
    assert first_cells("How batches are chosen") == set(get_args(charges.Sampling))

"""What the documentation tells people to type can be typed: commands, plans, links."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from vambrace.assess.reading import parse_plan
from vambrace.cli.main import app
from vambrace.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OURS = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("index", "tutorial", "how-to-ci", "inputs"))]
MENTIONS = (
    "vambrace init",
    "vambrace report",
    "vambrace gate",
    "vambrace replay",
)  # a bare name in prose needs no arguments
BASE: dict[str, Any] = {"schema": 1, "model": {"source": "net.onnx"}, "data": {"eval": {"source": "val/"}}}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """Command lines: in blocks of shell and of workflows, and between backquotes."""
    found = [
        line.strip().removeprefix("- run: ") for part in blocks(text, "(?:bash|yaml)") for line in part.splitlines()
    ]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    found += re.findall(r"`(vambrace [^`]+)`", prose)
    return [line.split("  #")[0] for line in found if line.startswith("vambrace ")]


def parsed(line: str) -> None:
    """Parse a command line without running it."""
    words = [re.sub(r"^\[|\]$", "", word) for word in shlex.split(line) if word != "..."]
    group: Any = typer.main.get_command(app)
    if words[1] in {"--help", "--version"}:  # they end before a command is looked for
        return
    with group.make_context("vambrace", [words[1], "--help"][:1], resilient_parsing=True):
        command = group.commands[words[1]]
    if len(words) > 2 or line not in MENTIONS:
        command.make_context(words[1], words[2:], resilient_parsing=False)


def pairs(paths: list[Path], find: Any) -> list[Any]:
    return [
        pytest.param(item, id=f"{path.stem}-{number}")
        for path in paths
        for number, item in enumerate(find(path.read_text(encoding="utf-8")))
    ]


@pytest.mark.parametrize("line", pairs(OURS, commands))
def test_commands_parse(line: str) -> None:
    parsed(line)


@pytest.mark.parametrize("text", pairs(OURS, lambda text: blocks(text, "toml")))
def test_plans_read(text: str) -> None:
    table = tomllib.loads(text)
    parse_plan({**BASE, **table} if "schema" not in table else table, base=ROOT, where="the example")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_guide_is_listed() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"({page.name})" in index


def test_the_checks_themselves_can_fail() -> None:
    assert len(pairs(OURS, commands)) >= 15
    with pytest.raises(Exception, match="(?i)no such option"):
        parsed("vambrace assess --modell x")
    with pytest.raises(ConfigError):
        parse_plan({**BASE, "checks": []}, base=ROOT, where="the example")

"""The pages about sealing: their code runs in their order, and what they say of the code is so."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from vambrace.assets import seal
from vambrace.assets.seal import stanzas
from vambrace.assets.seal.header import MOST_RECIPIENTS
from vambrace.assets.seal.keys import generate
from vambrace.cli import sealing
from vambrace.cli.main import main
from vambrace.errors import ArtifactRefused

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "assets" / "sealing.md"
THREATS = ROOT / "docs" / "assets" / "threat-model.md"
README = ROOT / "README.md"
TEXT = PAGE.read_text(encoding="utf-8")


def blocks(text: str) -> list[tuple[str, str]]:
    """Languages and texts of all blocks of code, in order."""
    return re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def shell(line: str) -> None:
    """Run a line: in this process where it is one command of ours, by bash otherwise."""
    if line.startswith("vambrace ") and not set(line.split("  #", maxsplit=1)[0]) & set("|<>&"):
        assert main(shlex.split(line, comments=True)[1:]) == 0, line
        return
    ours = f'vambrace() {{ "{sys.executable}" -m vambrace "$@"; }}'
    subprocess.run(["bash", "-euo", "pipefail", "-c", f"{ours}\n{line}"], check=True, timeout=120)


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """All blocks of the page run, in one folder; what the commands said."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, Any] = {"__name__": "page"}
    found = blocks(TEXT)
    assert [language for language, _ in found].count("python") == 7
    assert [language for language, _ in found].count("bash") == 5
    for number, (language, code) in enumerate(found):
        if language == "python":
            exec(compile(code, f"{PAGE.name}, block {number}", "exec"), names)
        else:
            for line in code.splitlines():
                shell(line)
    captured = capsys.readouterr()
    assert names["session"].run(None, {"x": -torch.ones(1, 3).numpy()})[0].max() == 0
    assert names["model"](torch.zeros(1, 64)).shape == (1, 10)
    return captured.out + captured.err


def test_code_runs_and_says_what_the_page_says(said: str, tmp_path: Path) -> None:
    for words in re.findall(r"^\| `(intact[^`]*)` \|", TEXT, re.MULTILINE):
        pattern = re.escape(words)
        for word, form in (
            ("KEY", "[A-Za-z0-9+/=]{44}"),
            ("NAME", "Ada"),
            ("ROLE", "release"),
            ("DATE", "[0-9TZ:-]{20}"),
        ):
            pattern = pattern.replace(word, form)
        assert re.search(pattern, said), words
    assert "not a revocation" in said
    plain = (tmp_path / "net.safetensors").read_bytes()
    for copy in ("opened.safetensors", "piped.safetensors", "model-again/net.safetensors"):
        assert (tmp_path / copy).read_bytes() == plain
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step-000000000003.sealed",
        "step-000000000005.sealed",
    ]
    weights = seal.load(tmp_path / "net.sealed", identity=tmp_path / "you", signer=tmp_path / "maker.pub")
    assert "0.weight" in weights
    with pytest.raises(ArtifactRefused, match="E728"):
        seal.load(tmp_path / "net.sealed", identity=tmp_path / "me")
    sealed = [*tmp_path.glob("*.sealed"), *tmp_path.glob("checkpoints/*")]
    assert len(sealed) >= 7
    assert not [path for path in sealed if b"0.weight" in path.read_bytes() or b"data_offsets" in path.read_bytes()]


def test_tables_and_lists_have_all_there_is() -> None:
    declared = re.findall(r"Literal\[(.*?)\]", inspect.getsource(sealing.keygen), re.DOTALL)[0]
    kinds = re.findall(r'"([^"]+)"', declared)
    assert len(kinds) >= 4
    for kind in kinds:
        assert generate(kind).kind == kind
        assert f"`{kind}`" in TEXT or f"--kind {kind}" in TEXT
    for suite in seal.Suite:
        name = suite.name.lower().replace("_", "-")
        assert name in TEXT or name.upper() in TEXT
    assert f"up to {MOST_RECIPIENTS}:" in TEXT


def test_costs_of_passphrases_are_those_of_the_code() -> None:
    usual, threats = seal.Argon2id(), THREATS.read_text(encoding="utf-8")
    assert (usual.memory_kib, usual.passes, usual.lanes) == (256 * 1024, 3, 4)
    assert "256 MiB, three passes and four lanes" in threats
    assert "(256 MiB, three passes)" in TEXT
    assert (max(stanzas.MEMORY_KIB), max(stanzas.PASSES)) == (2 * 2**20, 16)
    assert "up to 2 GiB, 16 passes" in threats


def test_the_example_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    section = README.read_text(encoding="utf-8").split("\n## Seal a model\n")[1].split("\n## ")[0]
    names: dict[str, Any] = {"network": torch.nn.Linear(3, 2)}
    ran = []
    for language, code in blocks(section):
        ran.append(language)
        if language == "python":
            exec(compile(code, "README.md", "exec"), names)
        else:
            for line in code.splitlines():
                shell(line)
    assert sorted(set(ran)) == ["bash", "python"]
    assert torch.equal(names["weights"]["weight"], names["network"].weight)


def test_no_figure_is_typed_by_hand() -> None:
    costs = TEXT.split("\n## What it costs\n")[1]
    assert "benchmarks/results/seal.json" in costs
    assert not re.search(r"\d+(\.\d+)? ?(GB|MB|GiB|MiB|ms|s|%|times)\b", costs)

"""The pages about attacks: their code runs, the new attack keeps its promises, and their tables are the code's."""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import vambrace.attacks
from vambrace import data, models
from vambrace.core import registry
from vambrace.core.access import Access, Bounds
from vambrace.testing.counting import CountingModel
from vambrace.testing.digits import train
from vambrace.testing.refusals import check_refusals

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "attacks"
PAGES = sorted(FOLDER.glob("*.md"))
NEW = FOLDER / "adding-an-attack.md"
SMALL = {"eps": 0.5, "steps": 3, "restarts": 2, "queries": 12, "budget": 12, "candidates": 2}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def code_lines(text: str) -> int:
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in text.splitlines())


# ---- the code of the pages --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world() -> dict[str, Any]:
    """What the pages take for granted: a network, others, and a few digits."""
    seen, unseen = data.load("digits:train"), data.load("digits:test")
    batch, few = seen.read(range(len(seen))), unseen.read(range(6))
    network, *others = (train(batch.inputs, batch.labels, width=4, epochs=2, seed=seed) for seed in range(3))
    return {
        "network": network,
        "model": models.from_torch(network, bounds=(0, 1)),
        "surrogates": [models.from_torch(other, bounds=(0, 1)) for other in others],
        "inputs": few.inputs,
        "labels": few.labels,
    }


@pytest.mark.parametrize("page", [page for page in PAGES if page != NEW], ids=lambda page: page.stem)
def test_code_runs(
    page: Path, world: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = blocks(page, "python")
    assert parts
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # where dataclasses look their names up
    vars(module).update(world)
    for number, part in enumerate(parts):
        exec(compile(part, f"{page.name}, block {number}", "exec"), vars(module))
    capsys.readouterr()


# ---- the new attack ---------------------------------------------------------------------------------------------


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The blocks of the page as files of an installed package; file name to text."""
    texts = [*blocks(NEW, "python"), *blocks(NEW, "toml")]
    files = {text.splitlines()[0].removeprefix("# "): text for text in texts}
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    group, line = re.findall(r'^\[project\.entry-points\."(.*)"\]\n(.*)$', files["pyproject.toml"], re.MULTILINE)[0]
    told = tmp_path / "acme_attacks-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-attacks\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text(f"[{group}]\n{line.replace(chr(34), '')}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._table.cache_clear()
    yield files
    for name in ("acme_attacks", "test_acme_attacks"):
        sys.modules.pop(name, None)
    registry._table.cache_clear()


def test_a_new_attack_takes_fewer_than_40_lines(acme: dict[str, str]) -> None:
    assert set(acme) == {"acme_attacks.py", "pyproject.toml", "test_acme_attacks.py"}
    assert sum(code_lines(text) for text in acme.values()) < 40
    assert max(len(line) for text in acme.values() for line in text.splitlines()) <= 120


def test_the_new_attack_keeps_its_promises(acme: dict[str, str]) -> None:
    module = importlib.import_module("test_acme_attacks")
    tests = [value for name, value in vars(module).items() if name.startswith("test_")]
    assert len(tests) == 1
    tests[0]()


def test_the_new_attack_is_registered_and_refuses_what_all_refuse(acme: dict[str, str]) -> None:
    attack = registry.load(registry.ATTACKS, "fading_pgd")(eps=0.1)
    check_refusals(attack, eps=0.1)
    assert stubborn(attack) == (attack.steps + 1, attack.steps)


def test_the_page_notices_a_broken_attack(acme: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("acme_attacks")
    monkeypatch.setattr(module.Fading, "slope", lambda self, anchor, state, logits, goal: torch.zeros_like(logits))
    with pytest.raises(AssertionError, match="linear decision"):
        importlib.import_module("test_acme_attacks").test_it_keeps_its_promises()


# ---- what the tables say ----------------------------------------------------------------------------------------


def costs() -> list[tuple[str, bool, str, str]]:
    """Rows of the cost table: attack, whether with targets, forwards, backwards."""
    text = (FOLDER / "index.md").read_text(encoding="utf-8").split("## What each costs")[1].split("\n## ")[0]
    rows: list[tuple[str, bool, str, str]] = []
    for names, forwards, backwards in re.findall(r"^\| (`.*?) \| (.*?) \| (.*?) \|$", text, re.MULTILINE):
        with_targets = "with `targets`" in names
        found = re.findall(r"`(\w+)`", names.replace("`targets`", ""))
        rows += [(name, with_targets, forwards, backwards) for name in found]
    return rows


COUNTED = [row for row in costs() if row[0] not in ("Standard", "Adaptive")]


def stubborn(attack: Any) -> tuple[int, int]:
    """Forwards and backwards of a sample that a model never gives up: the other classes are out of reach."""
    weight = torch.linspace(-1.0, 1.5, 16, dtype=torch.float64).repeat(4, 1).T * torch.tensor([0.0, 1.0, 1.1, 1.2])

    def network(points: Tensor) -> Tensor:
        scores = (points.flatten(1) - 0.5) @ weight
        return scores - torch.tensor([0.0, 1e3, 1e3, 1e3])

    model = CountingModel(network, access=Access.GRADIENTS, bounds=Bounds(0, 1), num_classes=4, dtype=torch.float64)
    inputs = torch.full((2, 1, 4, 4), 0.5, dtype=torch.float64)
    out = attack(model, inputs, torch.zeros(2, dtype=torch.int64))
    assert not bool(out.success.any())
    return int(out.forwards[0]), int(out.backwards[0])


@pytest.mark.parametrize(("name", "with_targets", "forwards", "backwards"), COUNTED, ids=str)
def test_costs_are_what_the_ledger_shows(name: str, with_targets: bool, forwards: str, backwards: str) -> None:
    kind = getattr(vambrace.attacks, name)
    fields = {field.name for field in dataclasses.fields(kind)}
    options = {key: value for key, value in SMALL.items() if key in fields}
    if with_targets:
        options["targets"] = 2
    if name == "CarliniWagner":
        options = {"steps": 3, "searches": 2, "hasty": False}
    attack = kind(**options)
    known = {"classes": 4, **{key: getattr(attack, key) for key in fields}}
    wanted = [
        int(eval(re.findall(r"`(.*)`", cell)[0], {"__builtins__": {}}, known))  # our own table
        for cell in (forwards, backwards)
    ]
    found = stubborn(attack)
    if "at most" in forwards:
        assert found[0] <= wanted[0]
        assert found[1] <= wanted[1]
    else:
        assert list(found) == wanted


def test_every_attack_has_its_line() -> None:
    written = {name for name, *_ in costs()} | {"MomentumPGD"}
    pages = " ".join(page.read_text(encoding="utf-8") for page in PAGES if page.name != "index.md")
    for name in registry.names(registry.ATTACKS):
        kind = registry.load(registry.ATTACKS, name).__name__
        assert kind in written, f"{kind} is missing in the cost table of index.md"
        assert f"`{kind}`" in pages, f"{kind} is on no page of its family"


def test_every_page_is_listed_and_has_its_picture() -> None:
    index = (FOLDER / "index.md").read_text(encoding="utf-8")
    for page in PAGES:
        assert page.name == "index.md" or f"({page.name})" in index
    shown = {name for page in PAGES for name in re.findall(r"pictures/([\w-]+)\.svg", page.read_text(encoding="utf-8"))}
    assert shown == {file.stem for file in (ROOT / "docs" / "pictures").glob("*.svg")}


def test_versions_of_standard_are_those_of_the_code() -> None:
    text = (FOLDER / "ensembles.md").read_text(encoding="utf-8")
    for version in ("standard", "plus", "rand"):
        assert f'"{version}"' in text
        vambrace.attacks.Standard(eps=0.1, version=version)


@pytest.mark.parametrize("folder", ["attacks", "search"])
def test_the_map_names_every_file(folder: str) -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    cells = " ".join(re.findall(rf"^\| `{folder}`.*$", text, re.MULTILINE))
    files = {file.stem for file in (ROOT / "src" / "vambrace" / folder).glob("*.py")} - {"__init__"}
    assert {name for name in files if not re.search(rf"\b{name}\b", cells)} == set()

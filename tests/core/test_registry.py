"""The table of names: built-ins, plug-ins, and what is wrong with either. Nothing is imported until asked."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from vambrace.core import registry
from vambrace.errors import ConfigError, MissingExtra

ROOT = Path(__file__).resolve().parents[2]
GROUPS = (registry.ATTACKS, registry.PERTURBATIONS, registry.CHECKS)


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Install a package by hand: metadata and modules on a path that only this test sees."""
    made = []

    def install(points, *, name="acme", version="1.2", module="acme_plugin", source=""):
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = [f"[{group}]\n{key} = {target}\n" for group, key, target in points]
        (info / "entry_points.txt").write_text("\n".join(lines))
        (tmp_path / f"{module}.py").write_text(source)
        made.append(module)
        registry._table.cache_clear()

    monkeypatch.syspath_prepend(tmp_path)
    yield install
    registry._table.cache_clear()
    for module in made:
        sys.modules.pop(module, None)


GOOD = '''
from dataclasses import dataclass
from typing import ClassVar
from vambrace.core.access import Access
from vambrace.core.options import Options

@dataclass(frozen=True, kw_only=True)
class Patch(Options):
    """Paste a sticker.

    More words.
    """
    size: int = 3
    needs: ClassVar[Access] = Access.GRADIENTS

not_a_class = 3

class Bare:
    pass
'''


def test_the_installed_table_is_that_of_the_source():
    """An editable installation keeps the table of the day it was made: `make install` renews it."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    for group in GROUPS:
        assert {name: registry.entry(group, name).target for name in declared[group]} == declared[group]
        assert set(declared[group]) <= set(registry.names(group))


def test_nothing_is_imported_to_list_or_describe():
    code = (
        "import sys\n"
        "from vambrace.core import registry as r\n"
        f"[r.describe(g, n) for g in {GROUPS!r} for n in r.names(g)]\n"
        "print([m for m in sys.modules if m in ('torch', 'vambrace.attacks', 'vambrace.perturb')])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_an_unknown_name_lists_the_known_ones_and_the_nearest():
    with pytest.raises(ConfigError, match="E161") as caught:
        registry.load(registry.PERTURBATIONS, "gaussian-nois")
    assert caught.value.fix == "did you mean 'gaussian_noise'?"
    assert "rotate" in caught.value.expected
    with pytest.raises(ConfigError, match="vambrace list"):
        registry.load(registry.ATTACKS, "zzzzzzzz")


def test_a_plugin_is_loaded_named_and_described(plugin):
    plugin([("vambrace.attacks", "patch", "acme_plugin:Patch")], source=GOOD)
    assert "patch" in registry.names(registry.ATTACKS)
    assert registry.describe(registry.ATTACKS, "patch") == "Paste a sticker. (needs gradients, from acme 1.2)"
    assert "acme_plugin" not in sys.modules
    kind = registry.load(registry.ATTACKS, "patch")
    assert kind(size=4).as_json() == {"size": 4}
    assert registry.name_of(registry.ATTACKS, kind) == "patch"
    assert registry.entry(registry.ATTACKS, "patch").version == "1.2"


def test_a_re_export_is_still_found_by_its_class(plugin, tmp_path):
    plugin([("vambrace.attacks", "patch", "acme_front:Patch")], source=GOOD)
    (tmp_path / "acme_front.py").write_text("from acme_plugin import Patch")
    kind = registry.load(registry.ATTACKS, "patch")
    assert kind.__module__ == "acme_plugin"
    assert registry.name_of(registry.ATTACKS, kind) == "patch"
    sys.modules.pop("acme_front")


def test_a_class_without_a_name(plugin):
    plugin([("vambrace.attacks", "patch", "acme_plugin:Patch")], source=GOOD)

    class Nobody:
        pass

    with pytest.raises(ConfigError, match="E161: .*Nobody has no name"):
        registry.name_of(registry.PERTURBATIONS, Nobody)


def test_two_claims_to_one_name_name_both(plugin):
    plugin([("vambrace.perturbations", "rotate", "acme_plugin:Patch")], source=GOOD)
    for ask in (
        lambda: registry.load(registry.PERTURBATIONS, "rotate"),
        lambda: registry.names(registry.PERTURBATIONS),
        lambda: registry.describe(registry.PERTURBATIONS, "rotate"),
    ):
        with pytest.raises(ConfigError, match="E162") as caught:
            ask()
        assert "acme 1.2" in caught.value.seen
        assert "vambrace" in caught.value.seen
    assert registry.entry(registry.PERTURBATIONS, "contrast").distribution == "vambrace"


@pytest.mark.parametrize(
    ("target", "source", "code", "words"),
    [
        ("acme_plugin:Missing", GOOD, "E163", "AttributeError"),
        ("acme_plugin:Patch", "import no_such_package", "E163", "ModuleNotFoundError"),
        ("acme_plugin:Patch", "raise RuntimeError('boom')", "E163", "boom"),
        ("acme_plugin:Patch", "def (:", "E163", "SyntaxError"),
        ("acme_plugin:not_a_class", GOOD, "E164", "a int"),
        ("acme_plugin:Bare", GOOD, "E164", "a type"),
    ],
)
def test_a_broken_plugin_names_its_package(plugin, target, source, code, words):
    plugin([("vambrace.checks", "patch", target)], source=source)
    with pytest.raises(ConfigError, match=code) as caught:
        registry.load(registry.CHECKS, "patch")
    assert words in caught.value.seen
    assert "acme 1.2" in caught.value.seen
    # The catalogue still stands.
    assert "patch" in registry.names(registry.CHECKS)
    assert "from acme 1.2" in registry.describe(registry.CHECKS, "patch")


def test_our_own_errors_pass_through(plugin):
    source = "from vambrace.errors import MissingExtra\nraise MissingExtra('E112', seen='a', expected='b', fix='c')"
    plugin([("vambrace.checks", "patch", "acme_plugin:Patch")], source=source)
    with pytest.raises(MissingExtra):
        registry.load(registry.CHECKS, "patch")


def test_a_source_that_is_not_there_is_described_by_its_target(plugin):
    plugin([("vambrace.checks", "ghost", "no_such_top.sub:Ghost")])
    assert registry.describe(registry.CHECKS, "ghost") == "no_such_top.sub:Ghost (from acme 1.2)"


def test_one_package_met_twice_on_the_path_is_one_claim(plugin, tmp_path, monkeypatch):
    plugin([("vambrace.attacks", "patch", "acme_plugin:Patch")], source=GOOD)
    monkeypatch.syspath_prepend(str(tmp_path) + "/.")
    registry._table.cache_clear()
    assert registry.load(registry.ATTACKS, "patch")
    assert len([d for d in metadata.distributions() if d.name == "acme"]) == 2


def test_what_a_built_in_attack_needs_is_read_from_its_base():
    assert registry.describe(registry.ATTACKS, "pgd").endswith("(needs gradients)")


def test_needs_is_found_in_a_base_of_the_same_file(plugin):
    source = GOOD.replace("class Patch(Options)", "class Base(Options)") + "\nclass Patch(Base):\n    'A child.'\n"
    plugin([("vambrace.attacks", "patch", "acme_plugin:Patch")], source=source)
    assert registry.describe(registry.ATTACKS, "patch") == "A child. (needs gradients, from acme 1.2)"


def test_a_loop_of_bases_ends(plugin):
    source = "class Patch(Other):\n    'One.'\nclass Other(Patch):\n    'Two.'\n"
    plugin([("vambrace.attacks", "patch", "acme_plugin:Patch")], source=source)
    assert registry.describe(registry.ATTACKS, "patch") == "One. (from acme 1.2)"


def test_needs_that_depend_on_options_are_described_by_themselves_and_not_by_the_base() -> None:
    said = 'Steps along the sign of an estimated gradient. (needs labels for scene "label", else scores)'
    assert registry.describe(registry.ATTACKS, "nes") == said
    assert registry.describe(registry.CHECKS, "adversarial").count("needs") == 0
    assert registry.describe(registry.ATTACKS, "rays").endswith("(needs labels)")

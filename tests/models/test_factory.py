import functools
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from vambrace.errors import ConfigError, ModelRefused
from vambrace.models.factory import Built, build, root_of

SOURCE = """
from torch import nn
import sys

class Net(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.layer = nn.Linear(2, width)
    def forward(self, x):
        return self.layer(x)

def net(width=3):
    return Net(width).train()

def fails(): raise KeyError("depth")
def weights(): return Net().state_dict()
def leaves(): sys.exit(3)
VALUE = 3
"""


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder with a module whose name is this test's own, since imported modules stay imported."""
    name = f"nets_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    (tmp_path / "name").write_text(name)
    return tmp_path


def make(folder: Path, function: str = "net", trusted: list[str] | None = None, **arguments: object) -> Built:
    name = (folder / "name").read_text()
    return build(f"{name}:{function}", arguments, trusted=[name] if trusted is None else trusted, base=folder)


def test_builds_in_eval_mode_with_arguments(folder: Path) -> None:
    built = make(folder, width=5)
    assert built.network.layer.out_features == 5
    assert not any(part.training for part in built.network.modules())
    assert len(built.source) == 64


def test_a_class_is_a_factory_too(folder: Path) -> None:
    assert make(folder, "Net").network.layer.out_features == 3


def test_the_same_random_start_everywhere_and_no_trace_in_the_global_state(folder: Path) -> None:
    torch.manual_seed(1)
    first = torch.rand(1)
    torch.manual_seed(1)
    one, two = make(folder).network, make(folder).network
    assert torch.equal(torch.rand(1), first)
    assert torch.equal(one.layer.weight, two.layer.weight)


@pytest.mark.parametrize(
    ("function", "code", "said"),
    [
        ("missing", "E206", "nothing called missing in .*expected one of .*net"),
        ("Net.missing", "E206", "nothing called missing"),
        ("fails", "E207", "raised KeyError: 'depth'"),
        ("weights", "E207", "returned a OrderedDict"),
        ("leaves", "E207", "raised SystemExit: 3"),
    ],
)
def test_factories_that_fail(folder: Path, function: str, code: str, said: str) -> None:
    with pytest.raises(ModelRefused, match=said) as caught:
        make(folder, function)
    assert caught.value.code == code


def test_wrong_arguments_are_shown(folder: Path) -> None:
    with pytest.raises(ModelRefused, match=r"net\(depth=3\) raised TypeError"):
        make(folder, depth=3)


def test_untrusted_code_is_not_even_imported(folder: Path) -> None:
    name = (folder / "name").read_text()
    (folder / f"{name}.py").write_text(f"open({str(folder / 'canary')!r}, 'w').close()")
    with pytest.raises(ModelRefused, match=rf'\[trust\] code = \["{name}"\]') as caught:
        make(folder, trusted=["other", name[:-1], f"{name}.sub"])
    assert caught.value.code == "E205"
    assert not (folder / "canary").exists()


@pytest.mark.parametrize("factory", ["net", "a.b", "a:b:c", "a/b:c", ":f", "m:", "os; import x:f", "a-b:f", "../m:f"])
def test_references_of_another_form(factory: str) -> None:
    with pytest.raises(ConfigError) as caught:
        root_of(factory)
    assert caught.value.code == "E117"


def test_a_missing_module_of_ones_own(tmp_path: Path) -> None:
    with pytest.raises(
        ModelRefused, match="no module called no_such_nets.*put no_such_nets into the plan's folder"
    ) as caught:
        build("no_such_nets:net", {}, trusted=["no_such_nets"], base=tmp_path)
    assert caught.value.code == "E206"


def test_a_missing_dependency_is_named(folder: Path) -> None:
    name = (folder / "name").read_text()
    (folder / f"{name}.py").write_text("import no_such_library")
    with pytest.raises(ModelRefused, match="install no_such_library in this environment"):
        make(folder)


def test_an_import_that_raises(folder: Path) -> None:
    (folder / f"{(folder / 'name').read_text()}.py").write_text("1 / 0")
    with pytest.raises(ModelRefused, match="importing it raised ZeroDivisionError"):
        make(folder)


def test_an_import_that_leaves_does_not_take_the_program_along(folder: Path) -> None:
    (folder / f"{(folder / 'name').read_text()}.py").write_text("raise SystemExit(0)")
    with pytest.raises(ModelRefused, match="importing it raised SystemExit"):
        make(folder)


def test_another_module_of_the_name_is_not_taken_for_it(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    make(folder)
    name = (folder / "name").read_text()
    other = tmp_path_factory.mktemp("other")
    (other / f"{name}.py").write_text(SOURCE)
    with pytest.raises(ModelRefused, match="loaded already") as caught:
        build(f"{name}:net", {}, trusted=[name], base=other)
    assert caught.value.code == "E206"


def test_packages_and_relative_imports(tmp_path: Path) -> None:
    package = tmp_path / "pkg_of_nets" / "deep"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "parts.py").write_text(SOURCE)
    (package / "main.py").write_text("from .parts import Net\ndef net(): return Net()")
    arguments = ("pkg_of_nets.deep.main:net", {})
    first = build(*arguments, trusted=["pkg_of_nets.deep"], base=tmp_path)
    (package / "parts.py").write_text(SOURCE + "\n# changed")
    assert build(*arguments, trusted=["pkg_of_nets"], base=tmp_path).source != first.source, "classes count as source"
    assert "pkg_of_nets" in sys.modules


def test_functions_from_python() -> None:
    function = functools.partial(nn.Linear, 2)
    built = build(function, {"out_features": 3}, trusted=[], base=Path())
    assert built.network.out_features == 3
    assert built.source == build(nn.Linear, {"in_features": 2, "out_features": 3}, trusted=[], base=Path()).source


def test_code_without_a_file_has_no_source() -> None:
    scope: dict[str, object] = {"__name__": "nowhere_at_all"}
    exec("from torch import nn\ndef net(): return nn.Linear(1, 1)", scope)
    assert build(scope["net"], {}, trusted=[], base=Path()).source is None

"""Programs of torch.export: equal, stripped, led back, refused."""

from __future__ import annotations

import errno
import shutil
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from exported_nets import Encoder, ResNet, digits
from hiding import ALL, done, mlp
from vambrace.assets.obfuscate import torch_graph
from vambrace.assets.obfuscate.program_answers import compare_programs
from vambrace.assets.obfuscate.programs import Flat, program_digest
from vambrace.assets.obfuscate.record import ObfuscationMap
from vambrace.assets.obfuscate.torch_graph import (
    ObfuscatedProgram,
    exported_program,
    undo_program,
)
from vambrace.core import files
from vambrace.errors import ArtifactRefused, ConfigError, MissingExtra, ResourceError

if TYPE_CHECKING:
    from pathlib import Path

    from torch.export import ExportedProgram


@pytest.fixture(scope="module")
def hidden(resnet: ExportedProgram) -> ObfuscatedProgram:
    return exported_program(resnet, passes=ALL, seed=1)


def test_exact_is_equal_to_the_bit_on_batches_of_any_size(resnet: ExportedProgram, hidden: ObfuscatedProgram) -> None:
    assert all(done(hidden).values()), done(hidden)
    assert hidden.difference is not None
    assert hidden.difference.max_abs == 0
    pictures = digits()[0]
    found = compare_programs(resnet, hidden.program, [(pictures[:1],), (pictures[1200:1700],), (-3 * pictures[:7],)])
    assert found.max_abs == 0
    assert found.top1_of == 508
    assert found.top1_same == 508


def test_it_is_another_program(resnet: ExportedProgram, hidden: ObfuscatedProgram) -> None:
    before = {tensor.numpy().tobytes() for tensor in map(torch.Tensor.detach, resnet.state_dict.values())}
    after = [tensor.detach() for tensor in hidden.program.state_dict.values() if tensor.ndim == 4]
    assert len(after) == 9
    assert not any(tensor.numpy().tobytes() in before for tensor in after)
    operators = [[str(node.target) for node in each.graph.nodes] for each in (resnet, hidden.program)]
    assert operators[0] != [each for each in operators[1] if "index_select" not in each]


def test_nothing_says_where_it_comes_from(hidden: ObfuscatedProgram, resnet: ExportedProgram, tmp_path: Path) -> None:
    words = ("stem", "stages", "first_norm", "short", "ResNet", "Block", "exported_nets", "pictures", "site-packages")
    program = hidden.program
    for module in program.graph_module.modules():
        for node in module.graph.nodes:
            assert set(node.meta) <= {"val", "tensor_meta"}
    assert [entry.fqn for entry in program.module_call_graph] == [""]
    assert program.example_inputs is None
    texts = [str(program), str(program.graph_signature), str(program.module_call_graph), *program.state_dict]
    texts.append(program.module().print_readable(print_output=False))
    for name in ("net.pt2", "net.onnx"):
        hidden.save(tmp_path / name, pt2=name.endswith("pt2"))
        texts.append((tmp_path / name).read_bytes().decode("latin1"))
    for text in texts:
        assert not [word for word in words if word in text]
    torch.export.save(resnet, tmp_path / "plain.pt2")
    plain = (tmp_path / "plain.pt2").read_bytes().decode("latin1")
    assert [word for word in words if word in plain] == list(words)


def test_led_back(resnet: ExportedProgram, hidden: ObfuscatedProgram, tmp_path: Path) -> None:
    original = Flat.of(resnet)
    stored = ObfuscationMap.from_bytes(hidden.map.to_bytes())
    hidden.save(tmp_path / "net.pt2", pt2=True)
    for program in (hidden.program, torch.export.load(tmp_path / "net.pt2")):
        assert program_digest(program) == stored.obfuscated
        undone = undo_program(program, stored)
        assert undone.kept == ("metadata",)
        assert program_digest(undone.program) == stored.original == program_digest(original)
        assert list(undone.program.state_dict) == list(original.state)
        signature = undone.program.module_call_graph[0].signature
        assert signature is not None
        assert signature.forward_arg_names == ["pictures"]


def test_the_map_of_another_one(hidden: ObfuscatedProgram) -> None:
    other = exported_program(mlp(4, 8, 3), (torch.randn(2, 4),))
    with pytest.raises(ArtifactRefused, match="E804"):
        undo_program(other.program, hidden.map)


def test_a_program_that_was_changed_since() -> None:
    obfuscated = exported_program(mlp(4, 8, 3), (torch.ones(2, 4),), seed=1)
    assert undo_program(obfuscated.program, obfuscated.map).kept == ("metadata",)
    next(iter(obfuscated.program.state_dict.values())).data[0] += 1
    with pytest.raises(ArtifactRefused, match="E804 .*not the original|E804: .*not the original"):
        undo_program(obfuscated.program, obfuscated.map)


def test_with_passes_that_cannot_be_undone_only_the_program_that_was_made_is_led_back() -> None:
    """What comes out is not the original, so nothing else would show that a weight was changed."""
    net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    made = exported_program(net, (torch.ones(2, 4),), profile="tolerance", seed=1)
    assert undo_program(made.program, made.map).kept == ("rebasis", "metadata")
    other = exported_program(net, (torch.ones(2, 4),), profile="tolerance", seed=2)
    with pytest.raises(ArtifactRefused, match="E804"):
        undo_program(other.program, made.map)
    next(iter(made.program.state_dict.values())).data[0] += 1
    with pytest.raises(ArtifactRefused, match="E804: .*not what was made"):
        undo_program(made.program, made.map)


def test_the_source_is_left_alone(resnet: ExportedProgram, hidden: ObfuscatedProgram) -> None:
    assert "stem.0.weight" in resnet.state_dict
    assert any("stack_trace" in node.meta for node in resnet.graph.nodes)
    pointers = {tensor.data_ptr() for tensor in resnet.state_dict.values()}
    assert not pointers & {tensor.data_ptr() for tensor in hidden.program.state_dict.values()}


@pytest.mark.slow
def test_tolerance(resnet: ExportedProgram, encoder: ExportedProgram) -> None:
    for program in (resnet, encoder):
        obfuscated = exported_program(program, profile="tolerance", seed=2)
        assert done(obfuscated)["baked_permutation"] > 5
        found = compare_programs(program, obfuscated.program, [(digits()[0][1200:1700],)])
        assert 0 < found.max_row < 1e-5
        assert found.top1_same == 500
    assert done(obfuscated)["rebasis"] == 2


@pytest.mark.slow
def test_the_transformer_exactly(encoder: ExportedProgram) -> None:
    obfuscated = exported_program(encoder, seed=2)
    assert done(obfuscated)["scaling"] > 64
    assert compare_programs(encoder, obfuscated.program, [(digits()[0][:300],)]).max_abs == 0


@pytest.mark.slow
def test_onnx_of_it(resnet: ExportedProgram, hidden: ObfuscatedProgram, tmp_path: Path) -> None:
    digest = hidden.save(tmp_path / "net.onnx")
    assert len(digest) == 64
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    pictures = digits()[0][:50]
    answers = session.run(None, {session.get_inputs()[0].name: pictures.numpy()})[0]
    expected = resnet.module()(pictures).detach().numpy()
    assert np.abs(answers - expected).max() < 1e-4
    assert (answers.argmax(1) == expected.argmax(1)).all()


@pytest.mark.parametrize(("name", "pt2"), [("net.pt2", False), ("net.onnx", True)])
def test_an_archive_only_on_request(hidden: ObfuscatedProgram, tmp_path: Path, name: str, pt2: bool) -> None:
    with pytest.raises(ConfigError, match="E852"):
        hidden.save(tmp_path / name, pt2=pt2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("pt2", [False, True])
def test_what_cannot_be_written_leaves_what_was_there(
    hidden: ObfuscatedProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pt2: bool
) -> None:
    """Half a file stood in its place, under an error of torch or onnx."""
    target = tmp_path / ("net.pt2" if pt2 else "net.onnx")
    target.write_text("before")

    def full(*_given: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(files.system, "write", full)
        patch.setattr(torch_graph, "_as_onnx", lambda _program: b"model")
        with pytest.raises(ResourceError, match="E601.*ENOSPC"):
            hidden.save(target, pt2=pt2)
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]
    for export in ("onnx.export", "export.save"):  # which takes minutes
        monkeypatch.setattr(f"torch.{export}", lambda *_given, **_named: pytest.fail("it was exported for nothing"))
    with pytest.raises(ResourceError, match="E601.*ENOENT"):
        hidden.save(tmp_path / "nowhere" / target.name, pt2=pt2)


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_packages_that_are_missing_are_named_with_what_installs_them(
    hidden: ObfuscatedProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"E112.*{package} .*pip install 'vambrace\[onnx\]'"):
        hidden.save(tmp_path / "net.onnx")


def test_copies_of_customers_differ_and_repeat() -> None:
    key = bytes(range(32))
    net = mlp(8, 32, 16, 3)
    program = torch.export.export(net, (torch.randn(2, 8),))
    one, again, other = (exported_program(program, seed=key, customer=name) for name in ("a", "a", "b"))
    assert one.map == again.map
    assert program_digest(one.program) == program_digest(again.program) != program_digest(other.program)


@pytest.mark.parametrize("thing", [7, None, "net.onnx", b"net"])
def test_only_programs_are_led_back(hidden: ObfuscatedProgram, thing: Any) -> None:
    """An AttributeError of Python came out."""
    with pytest.raises(ConfigError, match=f"E850: a {type(thing).__name__};"):
        undo_program(thing, hidden.map)
    with pytest.raises(ArtifactRefused, match=f"E803: a {type(thing).__name__} in place of"):
        undo_program(hidden.program, thing)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ({"source": mlp(4, 4)}, "E850"),
        ({"source": object(), "example_inputs": (torch.ones(1),)}, "E850"),
        ({"source": mlp(4, 4), "example_inputs": (torch.ones(1, 5),)}, "E850"),
        ({"passes": ("predicates",)}, "E851"),
        ({"passes": ("rebasis",)}, "E851"),
        ({"passes": ("nothing",)}, "E802"),
        ({"ratio": "huge"}, "E802"),
        ({"profile": "loose"}, "E802"),
        ({"seed": -1}, "E800"),
        ({"customer": "a", "seed": 1}, "E800"),
    ],
)
def test_refused(call: dict[str, Any], code: str) -> None:
    given = {"source": mlp(4, 4), "example_inputs": (torch.ones(1, 4),)} if "source" not in call else {}
    with pytest.raises(ConfigError, match=code):
        exported_program(**{**given, **call})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler, about itself
@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
@pytest.mark.parametrize("kind", [ResNet, Encoder])
@pytest.mark.parametrize("freezing", [False, True])
def test_compiled(kind: type[nn.Module], freezing: bool, request: pytest.FixtureRequest) -> None:
    program = request.getfixturevalue(kind.__name__.lower())
    obfuscated = exported_program(program, passes=ALL, seed=1)
    pictures = digits()[0][:32]
    found = compare_programs(program, obfuscated.program, [(pictures,)], compiled=True, freezing=freezing)
    assert found.max_row < 1e-5
    assert found.top1_same == 32

"""Programs of torch.export: equal, stripped, led back, refused."""

from __future__ import annotations

import errno
import shutil
import sys
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from exported_nets import Encoder, ResNet, digits
from vambrace.assets.obfuscate import torch_graph
from vambrace.assets.obfuscate.passes.permutation import Permutation
from vambrace.assets.obfuscate.program_answers import _same_bits, compare_programs, noise_like
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
    from collections.abc import Callable
    from pathlib import Path

    from torch.export import ExportedProgram

EVERYWHERE = Permutation(share=1.0, slowdown=100.0)
ALL = (EVERYWHERE, "scaling", "signs", "order", "metadata", "names")


@pytest.fixture(scope="module")
def hidden(resnet: ExportedProgram) -> ObfuscatedProgram:
    return exported_program(resnet, passes=ALL, seed=1)


def done(obfuscated: ObfuscatedProgram) -> dict[str, int]:
    return {entry.name: entry.done for entry in obfuscated.map.passes}


def mlp(*sizes: int, curve: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for taken, given in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(taken, given), curve()]
    return nn.Sequential(*layers[:-1]).eval()


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


def test_a_program_that_changes_its_buffers_is_no_onnx_model(tmp_path: Path) -> None:
    """The file was written, and counted no calls."""
    made = exported_program(Counting().eval(), (torch.ones(2, 8),), passes=("names",), seed=1)
    with pytest.raises(ConfigError, match="E852.*changes 1 of its buffers or weights"):
        made.save(tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())
    made.save(tmp_path / "net.pt2", pt2=True)
    again = torch.export.load(tmp_path / "net.pt2").module()
    counts = [answer["calls"].item() for answer in (again(torch.ones(2, 8)), again(torch.ones(2, 8)))]
    assert counts[1] == counts[0] + 1


class Learning(nn.Module):
    """Changes a weight, and with `inputs` what it is given, when it runs."""

    def __init__(self, inputs: bool) -> None:
        super().__init__()
        self.layer, self.inputs = nn.Linear(4, 4), inputs

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            (x if self.inputs else self.layer.weight).add_(1)
        return torch.relu(self.layer(x))


def test_a_program_that_changes_its_weights_is_no_onnx_model(tmp_path: Path) -> None:
    made = exported_program(Learning(False).eval(), (torch.ones(2, 4),), passes=("names",), seed=1)
    with pytest.raises(ConfigError, match="E852.*changes 1 of its buffers or weights"):
        made.save(tmp_path / "net.onnx")


def test_a_program_that_changes_its_inputs_is_refused() -> None:
    """An error of torch came out."""
    with pytest.raises(ConfigError, match="E850.*changes its inputs in place"):
        exported_program(Learning(True).eval(), (torch.ones(2, 4),), seed=1)


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_packages_that_are_missing_are_named_with_what_installs_them(
    hidden: ObfuscatedProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"E112.*{package} .*pip install 'vambrace\[onnx\]'"):
        hidden.save(tmp_path / "net.onnx")


@pytest.mark.parametrize("examples", [torch.zeros, torch.ones])
def test_examples_that_say_nothing_about_sums_are_not_believed(examples: Callable[..., Tensor]) -> None:
    """Of zeros or ones any order of sums is as good: later inputs got other last bits."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 31, 3, padding=1), nn.BatchNorm2d(31), nn.ReLU(), nn.Conv2d(31, 29, 3, stride=2), nn.Tanh()]
    layers += [nn.Conv2d(29, 13, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(13, 7)]
    program = torch.export.export(nn.Sequential(*layers).eval(), (examples(4, 3, 17, 17),))
    made = exported_program(program, passes=(EVERYWHERE,), seed=1)
    for seed in range(8):
        call = (torch.randn(4, 3, 17, 17, generator=torch.Generator().manual_seed(seed)),)
        assert compare_programs(program, made.program, [call]).differing == 0


class Picture(nn.Module):
    """A network of `Res`'s kind behind what its inputs go through first."""

    def __init__(self, first: str) -> None:
        super().__init__()
        self.first = first
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 31, 3, padding=1), nn.BatchNorm2d(31), nn.ReLU(), nn.Conv2d(31, 29, 3, stride=2)]
        layers += [nn.Tanh(), nn.Conv2d(29, 13, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(13, 7)]
        self.layers = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image.sqrt() if self.first == "sqrt" else image.float() / 255)


@pytest.mark.parametrize("first", ["sqrt", "bytes"])
def test_noise_is_what_a_program_takes(first: str) -> None:
    """Roots of normal noise are NaN, and bytes stayed what they were: answers differed on later inputs."""
    given = torch.zeros(4, 3, 17, 17, dtype=torch.uint8 if first == "bytes" else torch.float32)
    program = torch.export.export(Picture(first).eval(), (given,))
    made = torch.Generator().manual_seed(1)
    for seed in range(3):
        hidden = exported_program(program, passes=(EVERYWHERE,), seed=seed)
        for _ in range(6):
            call = torch.randint(0, 256, given.shape, generator=made).to(given)
            assert compare_programs(program, hidden.program, [(call,)]).differing == 0


def test_noise_is_of_the_kinds_that_are_taken() -> None:
    class Looked(nn.Module):
        def forward(self, places: Tensor, values: Tensor, sure: Tensor) -> Tensor:
            return torch.where(sure, values[places], 0).double().log()

    call = (torch.tensor([2, 0]), torch.ones(3, 2, dtype=torch.float16), torch.tensor([True, False]))
    flat = Flat.of(torch.export.export(Looked(), call), functional=True)
    noises = noise_like(flat, call)
    assert len(noises) == 8
    assert all((places >= 0).all() and (places <= 2).all() for places, _, _ in noises)
    assert len({tuple(places.tolist()) for places, _, _ in noises}) > 1
    assert {values.dtype for _, values, _ in noises} == {torch.float16}
    assert (noises[0][1] < 0).any()
    assert all((values >= 0).all() for _, values, _ in noises[4:])
    assert {sure.dtype for _, _, sure in noises} == {torch.bool}
    small = (torch.tensor([2, 0], dtype=torch.uint8).long(), *call[1:])
    assert len(noise_like(flat, small)) == 8
    assert noise_like(flat, (torch.tensor([9, 9]), *call[1:])) == []
    bytes_taken = Flat.of(torch.export.export(Bytes(), (torch.zeros(4, dtype=torch.uint8),)), functional=True)
    wide = noise_like(bytes_taken, (torch.zeros(4, dtype=torch.uint8),))
    assert [bool(each.any()) for (each,) in wide] == [True, True, False, False] * 2


class Bytes(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values.float() + 1


def test_where_a_program_takes_no_noise_its_places_stay() -> None:
    """The examples alone say too little: of zeros any order of sums is as good."""

    class Strict(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(8, 32), nn.Linear(32, 5)

        def forward(self, values: Tensor, places: Tensor) -> Tensor:
            return self.two(torch.relu(self.one(values[places])))

    # No other number is a place, and this one is none of a smaller table.
    program = torch.export.export(Strict().eval(), (torch.randn(4, 8), torch.tensor([3])))
    flat = Flat.of(program, functional=True)
    assert noise_like(flat, (torch.randn(4, 8), torch.tensor([4]))) == []
    taken = exported_program(program, passes=(EVERYWHERE,), seed=1)
    assert done(taken) == {"permutation": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vambrace.assets.obfuscate.torch_graph.noise_like", lambda *_: [])
        left = exported_program(program, passes=(EVERYWHERE,), seed=1)
    assert done(left) == {"permutation": 0}


def test_a_place_of_which_noise_says_nothing_is_left() -> None:
    """Constants and NaN are the same in any order of sums."""

    class Dead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(8, 32), nn.Linear(32, 5)

        def forward(self, values: Tensor) -> Tensor:
            return self.two(torch.relu(self.one(values.abs().neg().log())))

    program = torch.export.export(Dead().eval(), (torch.randn(4, 8),))
    assert done(exported_program(program, passes=(EVERYWHERE,), seed=1)) == {"permutation": 0}


def test_other_bits_are_found_whatever_they_are() -> None:
    """Zeros of the other sign and infinities are other bits; NaN is NaN."""
    one = torch.tensor([0.0, torch.nan, torch.inf, 1.0])
    most = torch.finfo(torch.float32).max
    for other, same in (
        ([0.0, torch.nan, torch.inf, 1.0], True),
        ([-0.0, torch.nan, torch.inf, 1.0], False),
        ([0.0, 0.0, torch.inf, 1.0], False),
        ([0.0, torch.nan, most, 1.0], False),
        ([0.0, torch.nan, torch.inf, torch.nan], False),
    ):
        assert _same_bits(one, torch.tensor(other)) is same
        assert _same_bits(torch.tensor(other), one) is same
    assert _same_bits(torch.tensor([1, 2]), torch.tensor([1, 2]))
    assert not _same_bits(torch.tensor([1, 2]), torch.tensor([1, 3]))


def test_places_where_sums_come_out_otherwise_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    # Ten rows at once: some libraries sum the last columns of such a product in another order.
    net, inputs = mlp(64, 64, 10), torch.randn(4, 64)
    program = torch.export.export(net, (inputs,))
    obfuscated = exported_program(program, passes=ALL, seed=3)
    assert compare_programs(program, obfuscated.program, [(inputs,)]).max_abs == 0
    seen: list[int] = []

    def first_wrong(flat: Flat, call: Any, names: list[str]) -> dict[str, Tensor]:
        seen.append(len(names))
        return {name: torch.full((1,), float(len(seen))) for name in names}

    monkeypatch.setattr("vambrace.assets.obfuscate.torch_graph.values_of", first_wrong)
    monkeypatch.setattr("vambrace.assets.obfuscate.program_answers.values_of", first_wrong)
    spoiled = exported_program(program, passes=(EVERYWHERE,), seed=3)
    # Noise to see whether the program takes it, then each of nine calls before and after.
    assert seen == [*[0] * 8, *[2] * 18, *[0] * 8, *[1] * 18]
    assert done(spoiled) == {"permutation": 0}
    assert spoiled.map.passes[0].left["sums that depend on where a channel stands"] == 2


@pytest.mark.parametrize(
    ("layers", "size", "free", "others"),
    [
        ([nn.Linear(12, 100), nn.Linear(100, 100), nn.Linear(100, 5)], (16, 12), (0,), [(1, 12), (2, 12), (40, 12)]),
        (
            [nn.Conv2d(12, 100, 1), nn.Conv2d(100, 101, 1), nn.Conv2d(101, 5, 1)],
            *((1, 12, 9, 10), (2, 3), [(1, 12, 2, 3), (1, 12, 3, 2), (1, 12, 33, 17)]),
        ),
        (
            [nn.Conv2d(3, 40, 1), nn.Conv2d(40, 42, 3, groups=2, padding=1), nn.Conv2d(42, 5, 1)],
            *((16, 3, 2, 3), (0,), [(1, 3, 2, 3), (5, 3, 2, 3), (17, 3, 2, 3)]),
        ),
    ],
    ids=["rows", "pictures", "number of pictures"],
)
def test_no_channel_changes_places_where_sizes_are_free(
    layers: list[nn.Module], size: tuple[int, ...], free: tuple[int, ...], others: list[tuple[int, ...]]
) -> None:
    """Kernels for few rows, or small pictures, sum otherwise than those for an example: last bits showed it."""
    first, second, third = layers
    net = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third).eval()
    inputs = torch.randn(size)
    sizes = ({axis: torch.export.Dim(f"size{axis}") for axis in free},)
    program = torch.export.export(net, (inputs,), dynamic_shapes=sizes)
    calls = [(torch.randn(each),) for each in others]
    for seed in range(2):
        assert done(exported_program(net, (inputs,), passes=(EVERYWHERE,), seed=seed))["permutation"]
        made = exported_program(program, (inputs,), passes=(EVERYWHERE,), seed=seed)
        assert done(made)["permutation"] == 0
        assert compare_programs(program, made.program, calls).max_abs == 0


class Products(nn.Module):
    """Two layers, written as one operator."""

    def __init__(self, operator: str) -> None:
        super().__init__()
        self.operator = operator
        self.first, self.last = (nn.Parameter(torch.randn(sizes)) for sizes in ((12, 100), (100, 5)))
        self.offsets = nn.ParameterList(torch.randn(size) for size in (100, 5))

    def product(self, x: torch.Tensor, at: int) -> torch.Tensor:
        weights = (self.first, self.last)[at]
        if self.operator == "addmm":
            return torch.addmm(self.offsets[at], x, weights)
        return getattr(torch, self.operator)(x, weights)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.product(torch.relu(self.product(x, 0)), 1)


@pytest.mark.parametrize("operator", ["matmul", "mm", "addmm"])
def test_products_of_any_name_keep_their_channels_where_rows_are_free(operator: str) -> None:
    net, inputs, free = Products(operator).eval(), torch.randn(16, 12), ({0: torch.export.Dim("rows")},)
    found = [
        exported_program(net, (inputs,), passes=(EVERYWHERE,), seed=0, dynamic_shapes=sizes) for sizes in (None, free)
    ]
    assert [done(each)["permutation"] for each in found] == [1, 0]


def test_copies_of_customers_differ_and_repeat() -> None:
    key = bytes(range(32))
    net = mlp(8, 32, 16, 3)
    program = torch.export.export(net, (torch.randn(2, 8),))
    one, again, other = (exported_program(program, seed=key, customer=name) for name in ("a", "a", "b"))
    assert one.map == again.map
    assert program_digest(one.program) == program_digest(again.program) != program_digest(other.program)


class Tied(nn.Module):
    """A language model whose head is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, 0.0, "gelu", batch_first=True)
        self.head = nn.Linear(16, 50, bias=False)
        self.head.weight = self.words.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.layer(self.words(words)))


class Branched(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(16, 8)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.relu(self.first(inputs))

        def positive(taken: Tensor) -> Tensor:
            return self.second(taken)

        return torch.cond(hidden.sum() > 1, positive, lambda taken: self.third(taken) * 2, (hidden,))


class Counting(nn.Module):
    """A result that is a dict, a buffer that is written, a weight that only part of the code uses."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 8)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        self.calls.add_(1)
        with torch.no_grad():
            hidden = torch.relu_(self.first(inputs))
        return {"scores": self.second(hidden), "calls": self.calls * 1}


class Pyramid(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.up, self.norm = nn.ConvTranspose2d(16, 8, 2, 2), nn.GroupNorm(4, 8)
        self.last = nn.Conv2d(16, 4, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        wide = torch.relu(self.down(inputs))
        small = nn.functional.leaky_relu(self.deep(nn.functional.max_pool2d(wide, 2)))
        return self.last(torch.cat([wide, nn.functional.silu(self.norm(self.up(small)))], 1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(torch.tanh(self.inner(inputs)[0]))


CASES: dict[str, tuple[Any, tuple[Any, ...], str]] = {
    "tied": (Tied, (torch.arange(14).reshape(2, 7),), "baked_permutation"),
    "branched": (Branched, (torch.ones(3, 8),), "names"),
    "counting": (Counting, (torch.ones(3, 8),), "scaling"),
    "pyramid": (Pyramid, (torch.linspace(-1, 1, 512).reshape(2, 1, 16, 16),), "scaling"),
    "recurrent": (Recurrent, (torch.linspace(-1, 1, 80).reshape(2, 5, 8),), "names"),
    "tanh": (lambda: mlp(8, 33, 17, 5, curve=nn.Tanh), (torch.linspace(-3, 3, 56).reshape(7, 8),), "signs"),
    "float64": (lambda: mlp(8, 16, 16).double(), (torch.linspace(-1, 1, 16).double().reshape(2, 8),), "scaling"),
    "bfloat16": (lambda: mlp(8, 16, 4).bfloat16(), (torch.ones(2, 8).bfloat16(),), "names"),
    "channels_last": (
        lambda: ResNet(8).to(memory_format=torch.channels_last),
        (torch.linspace(-1, 1, 128).reshape(2, 1, 8, 8),),
        "scaling",
    ),
}
FAST = ("tied", "counting", "tanh")


def test_programs_of_half_precision_turn_signs_and_compute_the_same() -> None:
    torch.manual_seed(0)
    inputs = torch.linspace(-3, 3, 56).reshape(7, 8).half()
    program = torch.export.export(mlp(8, 33, 17, 5, curve=nn.Tanh).half().eval(), (inputs,))
    obfuscated = exported_program(program, profile="exact", seed=5)
    counts = done(obfuscated)
    assert counts["signs"] > 0
    assert counts["scaling"] == counts["permutation"] == 0
    assert torch.equal(obfuscated.program.module()(inputs), program.module()(inputs))
    assert program_digest(undo_program(obfuscated.program, obfuscated.map).program) == obfuscated.map.original


class Chooses(nn.Module):
    """A branch in a branch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(8, 16), nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        def inner(found: torch.Tensor) -> torch.Tensor:
            return torch.cond(found.sum() > 9, lambda each: each * 3, lambda each: each - 1, (found,))

        found = torch.relu(self.first(inputs))
        return torch.cond(found.sum() > 3, self.second, lambda each: self.third(inner(each)) / 2, (found,))


class ChoosesOne(nn.Module):
    """Of what operators in a branch give, one is used."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        found = torch.relu(self.first(inputs))

        def one(each: torch.Tensor) -> torch.Tensor:
            return self.last(self.norm(each)).max(1)[0]

        return torch.cond(found.sum() > 3, one, lambda each: self.last(each).topk(2)[0][:, 0] * 2, (found,))


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of torch, on exporting branches
def test_values_that_archives_take_out_of_tuples_do_not_count(tmp_path: Path) -> None:
    program = torch.export.export(ChoosesOne().eval(), (torch.linspace(-2, 2, 48).reshape(6, 8),))
    hidden = exported_program(program, profile="exact", seed=5)
    hidden.save(tmp_path / "net.pt2", pt2=True)
    stored = torch.export.load(tmp_path / "net.pt2")
    assert program_digest(stored) == hidden.map.obfuscated
    assert program_digest(undo_program(stored, hidden.map).program) == hidden.map.original


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of torch, on exporting branches
def test_programs_with_branches_are_led_back_from_archives(tmp_path: Path) -> None:
    """An archive makes lists of tuples, and puts branches elsewhere: its own map did not go with it."""
    inputs = torch.linspace(-2, 2, 48).reshape(6, 8)
    program = torch.export.export(Chooses().eval(), (inputs,))
    hidden = exported_program(program, profile="exact", seed=5)
    hidden.save(tmp_path / "net.pt2", pt2=True)
    stored = torch.export.load(tmp_path / "net.pt2")
    assert torch.equal(stored.module()(inputs), program.module()(inputs))
    for each in (hidden.program, stored):
        assert program_digest(undo_program(each, hidden.map).program) == hidden.map.original


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of torch, on exporting branches
@pytest.mark.parametrize("depth", [1, 2])
def test_what_changed_in_a_branch_is_noticed(depth: int) -> None:
    hidden = exported_program(torch.export.export(Chooses().eval(), (torch.ones(6, 8),)), profile="exact", seed=5)
    graphs = [each for each in hidden.program.graph_module.modules() if isinstance(each, torch.fx.GraphModule)]
    target = {1: torch.ops.aten.div.Tensor, 2: torch.ops.aten.mul.Tensor}[depth]
    (node,) = [node for each in graphs for node in each.graph.nodes if node.target == target]
    node.update_arg(1, 5)
    with pytest.raises(ArtifactRefused, match="E804"):
        undo_program(hidden.program, hidden.map)


class Attends(nn.Module):
    """Attention gives None in the place of weights that nobody wants."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.last = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, inputs: torch.Tensor, scale: float | None) -> tuple[torch.Tensor, torch.Tensor | None, str]:
        found, weights = self.attention(inputs, inputs, inputs, need_weights=False)
        return self.last(found) * (2.0 if scale is None else scale), weights, "said"


@pytest.mark.parametrize("scale", [None, 3.0])
@pytest.mark.parametrize("profile", ["exact", "tolerance"])
def test_answers_that_are_no_numbers(profile: Literal["exact", "tolerance"], scale: float | None) -> None:
    """Examples were refused as what the program does not take."""
    call = (torch.linspace(-2, 2, 80).reshape(2, 5, 8), scale)
    program = torch.export.export(Attends().eval(), call)
    hidden = exported_program(program, profile=profile, seed=5)
    assert hidden.difference is not None
    assert hidden.difference.elements == 30
    assert hidden.difference.max_row < 1e-5
    found, weights, said = hidden.program.module()(*call)
    assert (weights, said) == (None, "said")
    assert torch.allclose(found, program.module()(*call)[0], atol=1e-5)


class Overwrites(nn.Module):
    """A scale of channels that every call makes anew."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 4)
        self.register_buffer("scale", torch.linspace(0.5, 1.5, 16))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        found = torch.relu(self.first(inputs)) * self.scale
        self.scale.copy_(found.detach().abs().mean(0) + 0.1)
        return self.last(found)


class Draws(nn.Module):
    """Chance, in an order that has to stay."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        found = torch.relu(self.first(inputs))
        noise = torch.rand_like(found) * torch.randn_like(found)
        return self.last(found + noise) + torch.rand_like(inputs).sum()


@pytest.mark.parametrize("kind", [Overwrites, Draws])
@pytest.mark.parametrize("seed", range(3))
def test_later_calls_are_the_same_too(kind: type[nn.Module], seed: int) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(6, 8)
    program = torch.export.export(kind(), (inputs,))
    one, other = program.module(), exported_program(program, (inputs,), seed=seed).program.module()
    torch.manual_seed(5)
    expected = [one(inputs) for _ in range(3)]
    torch.manual_seed(5)
    assert all(torch.equal(other(inputs), each) for each in expected)
    assert not torch.equal(expected[0], expected[1])


class Finds(nn.Module):
    """As many rows as there are large scores."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        scores = self.last(torch.relu(self.first(inputs)))
        return scores[torch.where(scores[:, 0] > scores.mean())[0]]


def test_a_copy_as_onnx_leaves_the_program_and_other_copies_as_they_are(tmp_path: Path) -> None:
    """The next copy of a program whose sizes depend on data was refused, and so was the same one again."""
    torch.manual_seed(0)
    inputs = torch.randn(6, 8)
    program = torch.export.export(Finds().eval(), (inputs,))
    expected = program.module()(inputs)
    assert 0 < len(expected) < 6
    for customer in ("ada", "bob"):
        hidden = exported_program(program, seed=bytes(range(32)), customer=customer)
        for name in ("one.onnx", "two.onnx"):
            hidden.save(tmp_path / name)
            session = onnxruntime.InferenceSession(tmp_path / name)
            (found,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
            assert np.allclose(found, expected.detach().numpy(), atol=1e-6)


def test_a_number_and_none_are_apart() -> None:
    class One(nn.Module):
        def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
            return inputs + 1, None

    class Other(nn.Module):
        def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
            return None, inputs + 1

    first, second = (torch.export.export(kind(), (torch.ones(3),)) for kind in (One, Other))
    assert compare_programs(first, first, [(torch.ones(3),)]).exact
    assert not compare_programs(first, second, [(torch.ones(3),)]).exact


@pytest.mark.parametrize("thing", [7, None, "net.onnx", b"net"])
def test_only_programs_are_led_back(hidden: ObfuscatedProgram, thing: Any) -> None:
    """An AttributeError of Python came out."""
    with pytest.raises(ConfigError, match=f"E850: a {type(thing).__name__};"):
        undo_program(thing, hidden.map)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch, on exporting some of these
@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_programs_of_many_kinds(name: str) -> None:
    make, inputs, expected = CASES[name]
    torch.manual_seed(0)
    program = torch.export.export(make().eval(), inputs)
    before = {name: tensor.detach().clone() for name, tensor in program.state_dict.items()}
    for profile in ("exact", "tolerance"):
        obfuscated = exported_program(program, profile=profile, seed=5)
        assert obfuscated.difference is not None
        assert obfuscated.difference.max_row < 1e-5
        if profile == "exact":
            assert obfuscated.difference.max_abs == 0
    assert done(obfuscated)[expected] > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in program.state_dict.items())
    exact = exported_program(program, seed=5)
    assert program_digest(undo_program(exact.program, exact.map).program) == exact.map.original


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


class Noisy(nn.Module):
    """Draws at every call, or not."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 32), nn.Linear(32, 24), nn.Linear(24, 5)
        self.share = share

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.b(torch.relu(self.a(x)))
        return self.c(torch.sigmoid(x + self.share * torch.rand(24) if self.share else x))


@pytest.mark.parametrize("share", [1.0, 0.0])
def test_programs_that_draw_at_random_are_not_judged(share: float) -> None:
    found = exported_program(
        Noisy(share), (torch.rand(20, 8, generator=torch.Generator().manual_seed(0)),), profile="tolerance", seed=1
    )
    assert found.fitted is not None
    assert found.fitted.left_out == ()
    assert {entry.name: entry.done for entry in found.map.passes}["baked_permutation"] > 0
    assert (found.fitted.moved is None) is (share > 0)

"""Programs of many kinds: branches, ties, buffers, chance, odd answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from exported_nets import ResNet
from hiding import done, mlp
from vambrace.assets.obfuscate.program_answers import compare_programs
from vambrace.assets.obfuscate.programs import program_digest
from vambrace.assets.obfuscate.torch_graph import (
    exported_program,
    undo_program,
)
from vambrace.errors import ArtifactRefused, ConfigError

if TYPE_CHECKING:
    from pathlib import Path


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

"""Where sums come out otherwise in another order of channels, programs of torch.export keep theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from hiding import ALL, EVERYWHERE, done, mlp
from vambrace.assets.obfuscate.program_answers import _same_bits, compare_programs, noise_like
from vambrace.assets.obfuscate.programs import Flat
from vambrace.assets.obfuscate.torch_graph import (
    exported_program,
)

if TYPE_CHECKING:
    from collections.abc import Callable


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
    fixed, open_rows = (done(each)["permutation"] for each in found)
    assert fixed >= 1, "how many of the two depends on the processor"
    assert open_rows == 0

"""Gram matrices are laid out and multiplied in whichever order is fast: the norms are the same."""

from __future__ import annotations

import pytest
import torch

from vambrace.privacy.dp.engine import products
from vambrace.privacy.dp.engine.convolution import Convolved, Window
from vambrace.privacy.dp.engine.products import Outer, constant


@pytest.mark.parametrize("positions", [63, 64, 65, 130])
@pytest.mark.parametrize("transposed", [False, True])
def test_norms_of_long_samples(positions: int, transposed: bool) -> None:
    chance = torch.Generator().manual_seed(positions)
    inputs, slopes = (torch.randn(3, positions, size, generator=chance).double() for size in (200, 180))
    piece = Outer(inputs, slopes, transposed=transposed)
    assert piece.method == "ghost"
    written = piece.per_sample(slice(None)).flatten(1).norm(dim=1).square()
    assert torch.allclose(piece.squares(), written, rtol=1e-12)
    doubts = piece.doubts()
    assert doubts is not None
    assert not bool(doubts.any())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_that_are_the_same_at_all_positions_need_no_grams(
    transposed: bool, strided: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = torch.Generator().manual_seed(0)
    inputs, slope = (torch.randn(*shape, generator=chance).to(dtype) for shape in ((5, 7, 6), (5, 1, 4)))
    slopes = slope.expand(5, 7, 4) if strided else slope.repeat(1, 7, 1)
    monkeypatch.setattr(products, "grams", None)
    piece = Outer(inputs, slopes, transposed=transposed)
    exact = torch.einsum("ntd,ntp->ndp" if transposed else "ntd,ntp->npd", inputs.double(), slopes.double())
    close = 1e-12 if dtype == torch.float64 else 1e-5
    assert torch.allclose(piece.squares().double(), exact.flatten(1).norm(dim=1).square(), rtol=close)
    assert torch.allclose(piece.per_sample(slice(None)).double(), exact, rtol=close, atol=close)
    factors, out = torch.rand(5, generator=chance), torch.zeros(exact.shape[1:], dtype=torch.float64)
    factors, out = (each.to(torch.promote_types(dtype, torch.float32)) for each in (factors, out))
    piece.add_sum(factors, out)
    assert torch.allclose(out.double(), torch.einsum("n...,n->...", exact, factors.double()), rtol=close, atol=close)


@pytest.mark.parametrize("at", [(0, 1, 0), (4, 6, 3), (2, 3, 1)])
def test_one_value_that_differs_makes_them_different(at: tuple[int, int, int]) -> None:
    slopes = torch.ones(5, 7, 4)
    assert constant(slopes)
    slopes[at] = torch.nextafter(slopes[at], torch.tensor(2.0))
    assert not constant(slopes)
    slopes[at] = torch.nan
    assert not constant(slopes)


@pytest.mark.parametrize("positions", [63, 64, 65, 130])
def test_long_samples_that_cancel_are_doubted(positions: int) -> None:
    chance = torch.Generator().manual_seed(positions)
    inputs, slopes = (torch.randn(4, positions, 200, generator=chance) for _ in range(2))
    for sample, (one, other) in {1: (0, -1), 2: (-2, -1)}.items():  # in both halves, in the later one
        pair = inputs[sample, 0].clone(), slopes[sample, 0].clone()
        inputs[sample], slopes[sample] = 0.0, 0.0
        (inputs[sample, one], slopes[sample, one]), (inputs[sample, other], slopes[sample, other]) = pair, pair
        slopes[sample, other] *= -1.0
    inputs[3, -1] = 1e14
    piece = Outer(inputs, slopes)
    piece.squares()
    doubts = piece.doubts()
    assert doubts is not None
    assert doubts.tolist() == [False, True, True, True]


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize(
    ("dims", "size", "kernel", "stride", "dilation", "padding"),
    [(1, 9, 3, 1, 1, 1), (2, 9, 4, 2, 1, 0), (2, 7, 3, 1, 2, 1), (2, 20, 4, 4, 1, 2), (3, 4, 3, 1, 1, 0)],
)
def test_norms_of_convolutions_with_more_channels_than_columns(
    dims: int, size: int, kernel: int, stride: int, dilation: int, padding: int, images: int
) -> None:
    chance = torch.Generator().manual_seed(size)
    function = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}[dims]
    inputs = torch.randn(3 * images, 20, *(size,) * dims, generator=chance, dtype=torch.float64)
    weight = torch.randn(40, 20, *(kernel,) * dims, generator=chance, dtype=torch.float64)
    outputs = function(inputs, weight, None, stride, padding, dilation)
    slopes = torch.randn(outputs.shape, generator=chance, dtype=torch.float64)
    window = Window((kernel,) * dims, (stride,) * dims, ((padding, padding),) * dims, (dilation,) * dims, 1)
    piece = Convolved(inputs, slopes, tuple(weight.shape), window, 3)
    assert piece.method == "ghost"
    written = piece.per_sample(slice(None)).flatten(1).norm(dim=1).square()
    assert torch.allclose(piece.squares(), written, rtol=1e-12)


def test_long_vectors_of_any_group_are_doubted() -> None:
    chance = torch.Generator().manual_seed(0)
    inputs, slopes = torch.randn(3, 8, 6, generator=chance), torch.randn(3, 8, 4, generator=chance)
    inputs[1, 4:] = 1e14
    slopes[2, :4] = 1e14
    piece = Convolved(inputs, slopes, (8, 4, 3), Window((3,), (1,), ((0, 0),), (1,), 2), 3)
    assert piece.method == "ghost"
    piece.squares()
    doubts = piece.doubts()
    assert doubts is not None
    assert doubts.tolist() == [False, True, True]


@pytest.mark.parametrize(("inside", "outside"), [(20, 90), (90, 20)])
def test_factors_meet_half_precision_of_convolutions_in_float32(inside: int, outside: int) -> None:
    """Rounded in half precision, they took sums 0.3 % beyond the bound that was measured; on either side."""
    chance = torch.Generator().manual_seed(0)
    inputs = torch.randn(4, inside, 4, 4, generator=chance).bfloat16()
    slopes = torch.randn(4, outside, 2, 2, generator=chance).bfloat16()
    window = Window((3, 3), (1, 1), ((0, 0), (0, 0)), (1, 1), 1)
    piece = Convolved(inputs, slopes, (outside, inside, 3, 3), window, 4)
    assert piece.method == "ghost"
    factors, out = torch.rand(4, generator=chance), torch.zeros(outside, inside, 3, 3)
    piece.add_sum(factors, out)
    exact = Convolved(inputs.double(), slopes.double(), (outside, inside, 3, 3), window, 4).per_sample(slice(None))
    expected = torch.einsum("n...,n->...", exact, factors.double())
    assert float((out.double() - expected).norm()) < 1e-5 * float(expected.norm())

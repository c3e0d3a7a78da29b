"""Inputs and gradients of very different size: a norm that float32 cannot square must not come out too short."""

from __future__ import annotations

import pytest
import torch

from vambrace.privacy.dp.engine.convolution import Convolved, Window
from vambrace.privacy.dp.engine.products import Outer, Product, settle

SIZES = [(2.6e-23, 1e18), (1e-22, 1e17), (1e-22, 1e18), (1e18, 2.6e-23), (1e17, 1e-22), (1.0, 1.0)]


def outer(seen: float, slope: float) -> Product:
    slopes = torch.full((2, 4, 64), slope)
    slopes[:, 1:] *= 0.5  # else they would count as one position
    return Outer(torch.full((2, 4, 64), seen), slopes)


def convolved(seen: float, slope: float) -> Product:
    window = Window((1,), (1,), ((0, 0),), (1,), 1)
    return Convolved(torch.full((2, 64, 4), seen), torch.full((2, 64, 4), slope), (64, 64, 1), window, 2)


@pytest.mark.parametrize("make", [outer, convolved])
@pytest.mark.parametrize("sizes", SIZES)
def test_no_norm_is_too_short(make, sizes: tuple[float, float]) -> None:
    piece = make(*sizes)
    assert piece.method == "ghost"
    measured = piece.squares()
    if settle([piece]):
        measured = piece.squares()
    true = piece.per_sample(slice(None)).double().flatten(1).norm(dim=1)
    assert ((measured.double().sqrt() - true) / true).abs().max() < 1e-5


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("positions", [1, 4])
def test_one_position_may_be_measured_too_long_but_not_too_short(positions: int, sizes: tuple[float, float]) -> None:
    piece = Outer(*(torch.full((2, positions, 64), size) for size in sizes))
    true = piece.per_sample(slice(None)).double().flatten(1).norm(dim=1)
    assert (piece.squares().double().sqrt() >= true * (1 - 1e-6)).all()

"""Long samples are measured by three quarters of their Gram matrices: the norms are the same."""

from __future__ import annotations

import pytest
import torch

from vambrace.privacy.dp.engine.products import Outer


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

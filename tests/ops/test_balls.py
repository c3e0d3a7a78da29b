"""Balls of one radius a sample: the nearest change that is small enough, against slow references."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vambrace.ops.balls import shrink
from vambrace.ops.norms import lengths


def slow_l1(change: Tensor, radius: float) -> Tensor:
    """By bisection on what every element loses."""
    if change.abs().sum() <= radius:
        return change
    low, high = 0.0, float(change.abs().max())
    for _ in range(200):
        middle = (low + high) / 2
        if (change.abs() - middle).clamp(min=0).sum() > radius:
            low = middle
        else:
            high = middle
    return change.sign() * (change.abs() - high).clamp(min=0)


def slow_l0(change: Tensor, count: int) -> Tensor:
    kept = sorted(range(change.numel()), key=lambda place: (-abs(float(change[place])), place))[:count]
    return torch.stack([change[place] if place in kept else change[place] * 0 for place in range(change.numel())])


CHANGES = torch.randn(40, 2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
RADII = torch.rand(40, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 20


@pytest.mark.parametrize("looks", [True, False])
def test_l1_is_the_nearest_point_of_the_ball(looks: bool) -> None:
    found = shrink(CHANGES, RADII, "l1", looks=looks).flatten(1)
    for row, change in enumerate(CHANGES.flatten(1)):
        torch.testing.assert_close(found[row], slow_l1(change, float(RADII[row])), rtol=0, atol=1e-12)
    assert 5 < int((lengths(CHANGES, "l1") > RADII).sum()) < 40


def test_l0_keeps_the_largest() -> None:
    ties = CHANGES.mul(2).round()
    for changes in (CHANGES, ties):
        found = shrink(changes, RADII, "l0").flatten(1)
        for row, change in enumerate(changes.flatten(1)):
            assert torch.equal(found[row], slow_l0(change, int(RADII[row])))
        assert (lengths(found, "l0") <= RADII.floor()).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_scaling_and_clipping(norm: str) -> None:
    radii = RADII / 10
    found = shrink(CHANGES, radii, norm)
    for row, change in enumerate(CHANGES):
        radius = float(radii[row])
        expected = change.clamp(-radius, radius) if norm == "linf" else change * min(1.0, radius / float(change.norm()))
        torch.testing.assert_close(found[row], expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("looks", [True, False])
@pytest.mark.parametrize("norm", ["l0", "l1", "l2", "linf"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_edges(norm: str, dtype: torch.dtype, looks: bool) -> None:
    changes = CHANGES.to(dtype)
    kept = changes.clone()
    assert torch.equal(
        shrink(changes, torch.full((40,), float("inf"), dtype=torch.float64), norm, looks=looks), changes
    )
    assert torch.equal(
        shrink(changes, torch.zeros(40, dtype=torch.float64), norm, looks=looks), torch.zeros_like(changes)
    )
    assert torch.equal(shrink(torch.zeros_like(changes), RADII, norm, looks=looks), torch.zeros_like(changes))
    assert torch.equal(changes, kept), "left as they are"
    found = shrink(changes, RADII, norm, looks=looks)
    assert found.dtype == dtype
    assert (lengths(found, norm) <= RADII * (1 + 1e-5)).all()
    alone = torch.cat([shrink(changes[row : row + 1], RADII[row : row + 1], norm, looks=looks) for row in range(40)])
    torch.testing.assert_close(found, alone, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-14)

"""Rotation as a perturbation; the turn itself is tested in tests/ops/test_image.py."""

from __future__ import annotations

import pytest
import torch

from vambrace.core.access import Bounds
from vambrace.ops.image import rotate
from vambrace.perturb import Rotate

IMAGES = torch.rand(64, 1, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("border", ["low", "edge", "mirror"])
def test_each_sample_turns_by_the_angle_one_way_or_the_other(border) -> None:
    turned = Rotate(border=border)(IMAGES, severity=4, rng=1)
    left = rotate(IMAGES, torch.full((64,), 20.0), border=border)
    right = rotate(IMAGES, torch.full((64,), -20.0), border=border)
    is_left = torch.isclose(turned, left, atol=1e-6).flatten(1).all(1)
    is_right = torch.isclose(turned, right, atol=1e-6).flatten(1).all(1)
    assert torch.equal(is_left, ~is_right)
    assert 16 <= int(is_left.sum()) <= 48  # a fair coin misses this once in 28,000 seeds


def test_the_direction_is_the_same_at_every_severity() -> None:
    options = Rotate(degrees=(5, 10, 15, 20, 90))
    quarter = options(IMAGES, severity=5, rng=1)
    is_left = torch.isclose(quarter, IMAGES.rot90(1, (2, 3)), atol=1e-5).flatten(1).all(1)
    slight = rotate(IMAGES, torch.where(is_left, 5.0, -5.0), border="edge")
    torch.testing.assert_close(options(IMAGES, severity=1, rng=1), slight, atol=1e-6, rtol=0)


def test_low_fills_with_the_low_end_of_the_bounds() -> None:
    bounds = Bounds(-3.0, 5.0)
    turned = Rotate(border="low")(torch.full((1, 1, 20, 20), 5.0), severity=5, bounds=bounds)
    assert float(turned[0, 0, 0, 0]) == -3.0
    assert float(turned[0, 0, 10, 10]) == 5.0


def test_edge_adds_nothing_to_a_flat_background() -> None:
    for value in (0.0, 0.6, 1.0):
        flat = torch.full((2, 3, 11, 7), value)
        torch.testing.assert_close(Rotate()(flat, severity=5), flat, atol=1e-6, rtol=0)

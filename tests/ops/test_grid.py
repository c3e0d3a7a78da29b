"""Points on the 256 levels that 8-bit images have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vambrace.core.access import Bounds
from vambrace.ops.grid import on_grid
from vambrace.ops.norms import distances
from vambrace.ops.projections import tighten


def pictures(seed: int, n: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, 5, 5), generator=generator).float() / 255


@pytest.mark.parametrize(("norm", "eps"), [("linf", 8 / 255), ("linf", 0.3), ("l2", 0.5), ("l1", 3.0)])
@given(seed=st.integers(0, 10_000))
def test_saved_as_bytes_and_read_again_it_is_the_same_and_inside(norm: str, eps: float, seed: int) -> None:
    inputs = pictures(seed)
    away = inputs + torch.randn(inputs.shape, generator=torch.Generator().manual_seed(seed + 1)) * eps
    points, _ = tighten(away, inputs, eps, norm, Bounds(0.0, 1.0))
    found = on_grid(points, inputs, eps, norm, Bounds(0.0, 1.0))
    saved = (found.numpy() * 255).round().astype(np.uint8)
    again = torch.from_numpy(saved.astype(np.float32) / np.float32(255))
    assert torch.allclose(again, found, rtol=0, atol=6e-8)
    assert (distances(found, inputs, norm) <= eps).all()
    assert ((found >= 0) & (found <= 1)).all()
    assert ((found - points).abs() <= 2 / 255).all()


def test_nearest_level_where_the_ball_allows() -> None:
    inputs = torch.full((1, 4), 100 / 255)
    points = torch.tensor([[100.4, 100.6, 107.9, 92.2]]) / 255
    levels = on_grid(points, inputs, 7.5 / 255, "linf", Bounds(0.0, 1.0)) * 255
    assert levels.round().tolist() == [[100.0, 101.0, 107.0, 93.0]]


def test_other_boxes_and_per_feature_ends() -> None:
    inputs = torch.tensor([[10.0, 0.5]])
    bounds = Bounds(torch.tensor([0.0, 0.0]), torch.tensor([255.0, 1.0]))
    found = on_grid(torch.tensor([[17.4, 0.6]]), inputs, 100.0, "linf", bounds)
    assert found[0, 0] == 17.0
    assert abs(float(found[0, 1]) * 255 - 153) < 1e-4


def test_half_precision_keeps_its_type() -> None:
    inputs = pictures(0).half()
    assert on_grid(inputs, inputs, 0.1, "linf", Bounds(0.0, 1.0)).dtype == torch.float16

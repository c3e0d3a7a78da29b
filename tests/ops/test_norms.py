"""Sizes against NumPy, and the steepest direction against what it promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vambrace.ops.norms import distances, lengths, peaks, steepest

ORDERS = {"l0": 0, "l1": 1, "l2": 2, "linf": np.inf}


@pytest.mark.parametrize("norm", ORDERS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_lengths_equal_numpy(norm: str, layout: torch.memory_format) -> None:
    changes = torch.randn(5, 3, 4, 6, dtype=torch.float64).contiguous(memory_format=layout)
    changes[0, 0] = 0
    expected = [np.linalg.norm(one.ravel(), ORDERS[norm]) for one in changes.numpy()]
    np.testing.assert_allclose(lengths(changes, norm).numpy(), expected)
    assert lengths(changes[:0], norm).shape == (0,)


def test_distances_are_measured_in_float64() -> None:
    inputs = torch.tensor([[0.7]])
    points = torch.nextafter(inputs, torch.ones(1))
    assert distances(points, inputs, "linf").dtype == torch.float64
    assert distances(points, inputs, "linf").item() == points.double().item() - inputs.double().item()


@given(st.integers(0, 2**31), st.sampled_from(["linf", "l2", "l1"]), st.integers(-40, 37))
def test_steepest_is_the_steepest(seed: int, norm: str, exponent: int) -> None:
    """Of unit size, and no other change of that size has a larger inner product, whatever the gradient's scale."""
    generator = torch.Generator().manual_seed(seed)
    gradients = torch.randn(4, 2, 5, generator=generator) * 10.0**exponent
    gradients[3] = 0
    kept = gradients.clone()
    best = steepest(gradients, norm)
    assert torch.equal(gradients, kept)
    torch.testing.assert_close(lengths(best.double(), norm)[:3], torch.ones(3, dtype=torch.float64), rtol=1e-6, atol=0)
    assert (best[3] == 0).all()
    wide = gradients.double()
    others = torch.randn(50, 4, 2, 5, generator=generator, dtype=torch.float64)
    others = others / torch.stack([lengths(one, norm) for one in others]).reshape(50, 4, 1, 1)
    reached = (best.double() * wide).sum(dim=(1, 2))
    assert ((others * wide).sum(dim=(2, 3)) <= reached * (1 + 1e-5)).all()


def test_peaks_show_what_is_no_number() -> None:
    gradients = torch.tensor([[1.0, -3.0], [0.0, 0.0], [1e-45, 0.0], [float("nan"), 1.0]])
    found = peaks(gradients)
    assert found[:3].tolist() == [3.0, 0.0, pytest.approx(1e-45)]
    assert found[2] > 0
    assert found[3].isnan()

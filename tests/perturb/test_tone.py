"""Contrast: towards the mean of each channel, in order, never out of range."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from vambrace.core.access import Bounds
from vambrace.perturb import Contrast


def test_equals_the_published_formula() -> None:
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for severity, factor in enumerate((0.75, 0.5, 0.4, 0.3, 0.15), 1):
        mean = images.mean((2, 3), keepdim=True)
        expected = ((images - mean) * factor + mean).clip(0, 1)
        torch.testing.assert_close(Contrast()(images, severity=severity), expected)


@given(st.integers(0, 2**31), st.integers(1, 5), st.sampled_from([(0.0, 1.0), (0.0, 255.0), (-1.0, 3.0)]))
def test_never_folds_and_never_overflows(seed: int, severity: int, ends: tuple[float, float]) -> None:
    """MindArmour took the absolute value of what fell below zero and let 8 bits run over."""
    bounds = Bounds(*ends)
    unit = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    unit[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    images = bounds.clip(unit * bounds.span + ends[0])
    flat = Contrast()(images, severity=severity, bounds=bounds)
    before, after = images.flatten(), flat.flatten()
    order = before.argsort()
    assert (after[order].diff() >= -1e-5 * bounds.span).all()
    assert after.min() >= before.min()
    assert after.max() <= before.max()


def test_each_image_has_its_own_mean() -> None:
    """A shared mean would let one image brighten another."""
    images = torch.stack((torch.zeros(1, 8, 8), torch.ones(1, 8, 8)))
    assert torch.equal(Contrast()(images, severity=5), images)


def test_gradient_reaches_the_inputs() -> None:
    images = (0.2 + 0.6 * torch.rand(1, 1, 4, 5, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: Contrast()(x, severity=2), (images,))

"""Gaussian blur as a perturbation; the kernel itself is tested in tests/ops/test_image.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from vambrace.core.access import Bounds
from vambrace.perturb import GaussianBlur


@pytest.mark.parametrize(("side", "sigmas"), [(32, (0.4, 0.6, 0.7, 0.8, 1.0)), (224, (1, 2, 3, 4, 6))])
def test_equals_scipy_at_the_published_sigmas(side: int, sigmas: tuple[float, ...]) -> None:
    images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for severity, sigma in enumerate(sigmas, 1):
        expected = ndimage.gaussian_filter(images.numpy(), (0, 0, sigma, sigma), mode="reflect", truncate=4.0)
        np.testing.assert_allclose(GaussianBlur()(images, severity=severity).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("bounds", [Bounds(0, 1), Bounds(0, 255)])
def test_brightness_and_range_stay(bounds: Bounds) -> None:
    """MindArmour's motion blur stretched 0.3..0.6 to 0..1."""
    images = bounds.span * (0.3 + 0.3 * torch.rand(5, 3, 28, 28, generator=torch.Generator().manual_seed(2)))
    for severity in range(1, 6):
        soft = GaussianBlur()(images, severity=severity, bounds=bounds)
        torch.testing.assert_close(soft.mean((2, 3)), images.mean((2, 3)), atol=1e-5 * bounds.span, rtol=0)
        assert soft.min() >= images.min() - 1e-5 * bounds.span
        assert soft.max() <= images.max() + 1e-5 * bounds.span
        assert (soft.std((2, 3)) < images.std((2, 3))).all()


def test_a_flat_image_is_left_alone() -> None:
    flat = torch.full((1, 3, 9, 14), 0.37)
    torch.testing.assert_close(GaussianBlur()(flat, severity=5), flat, atol=1e-6, rtol=0)


def test_gradient_reaches_the_inputs() -> None:
    images = (0.2 + 0.6 * torch.rand(1, 1, 4, 5, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: GaussianBlur()(x, severity=5), (images,))

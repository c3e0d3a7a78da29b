"""Blur and rotation against SciPy, and the properties that make them what they are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from vambrace.ops.image import blur, blur_matrix, rotate


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.5, 6.0])
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (13, 40), (3, 5), (1, 1)])
def test_blur_equals_scipy(size: tuple[int, int], sigma: float) -> None:
    images = noise(2, 3, *size)
    expected = ndimage.gaussian_filter(images.numpy(), (0, 0, sigma, sigma), mode="reflect", truncate=4.0)
    np.testing.assert_allclose(blur(images, sigma=sigma).numpy(), expected, atol=1e-12)


@given(st.integers(1, 40), st.floats(0.2, 30.0))
def test_blur_keeps_brightness(size: int, sigma: float) -> None:
    """MindArmour's blur stretched what it had blurred to the full range."""
    matrix = blur_matrix(size, sigma)
    ones = torch.ones_like(matrix[0])
    torch.testing.assert_close(matrix.sum(0), ones, atol=1e-12, rtol=0)
    torch.testing.assert_close(matrix.sum(1), ones, atol=1e-12, rtol=0)
    assert matrix.min() >= 0


def test_blur_of_one_image_ignores_the_others() -> None:
    images = noise(13, 3, 17, 9, dtype=torch.float32)
    together = blur(images, sigma=1.3)
    for start, stop in ((0, 1), (3, 5), (5, 13)):
        alone = blur(images[start:stop], sigma=1.3)
        torch.testing.assert_close(alone, together[start:stop], atol=1e-6, rtol=0)


def test_blur_has_gradients() -> None:
    images = noise(2, 1, 5, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: blur(x, sigma=0.8), (images,))


@pytest.mark.parametrize(("border", "mode"), [("low", "grid-constant"), ("edge", "nearest"), ("mirror", "reflect")])
@pytest.mark.parametrize("size", [(9, 9), (8, 8), (7, 12), (20, 5)])
@pytest.mark.parametrize("degrees", [5.0, -25.0, 90.0, 137.0])
def test_rotate_equals_scipy(size: tuple[int, int], degrees: float, border: str, mode: str) -> None:
    images = noise(2, 1, *size)
    turn = math.radians(degrees)
    # SciPy maps (row, column) of the result to those of the source, about the pixel index of the centre.
    matrix = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    centre = (np.array(size) - 1) / 2
    expected = [
        ndimage.affine_transform(image[0].numpy(), matrix, centre - matrix @ centre, order=1, mode=mode)
        for image in images
    ]
    turned = rotate(images, torch.tensor([degrees, degrees]), border=border)  # type: ignore[arg-type]
    np.testing.assert_allclose(turned[:, 0].numpy(), np.stack(expected), atol=1e-9)


def test_rotate_is_counter_clockwise_and_exact_by_a_quarter() -> None:
    images = noise(1, 2, 6, 6)
    turned = rotate(images, torch.tensor([90.0]))
    torch.testing.assert_close(turned, images.rot90(1, (2, 3)), atol=1e-12, rtol=0)


def test_rotate_by_nothing_is_nothing() -> None:
    images = noise(3, 1, 5, 8)
    for border in ("low", "edge", "mirror"):
        torch.testing.assert_close(rotate(images, torch.zeros(3), border=border), images, atol=1e-12, rtol=0)


def test_rotate_keeps_the_size_of_the_object() -> None:
    """MindArmour grew the canvas and shrank it back: the object became smaller."""
    y, x = torch.meshgrid(torch.arange(41.0) - 20, torch.arange(41.0) - 20, indexing="ij")
    square = ((x.abs() <= 8) & (y.abs() <= 8)).to(torch.float64).view(1, 1, 41, 41)
    for degrees in (15.0, 25.0, 45.0):
        turned = rotate(square, torch.tensor([degrees]))
        assert float(turned.sum()) == pytest.approx(float(square.sum()), rel=0.01)
        far = (turned[0, 0] > 0.5).nonzero() - 20
        reach = float(far.double().norm(dim=1).max())
        assert reach == pytest.approx(8 * math.sqrt(2), abs=0.5)


def test_rotate_turns_each_sample_by_its_own_angle() -> None:
    images = noise(3, 1, 9, 9)
    degrees = torch.tensor([10.0, -10.0, 40.0])
    together = rotate(images, degrees)
    for i in range(3):
        assert torch.equal(rotate(images[i : i + 1], degrees[i : i + 1]), together[i : i + 1])
    mirrored = rotate(images[:1].flip(3), -degrees[:1]).flip(3)
    torch.testing.assert_close(mirrored, together[:1], atol=1e-12, rtol=0)


def test_rotate_has_gradients() -> None:
    images = noise(1, 1, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: rotate(x, torch.tensor([20.0])), (images,))

"""Placement against PyTorch's own interpolation and convolution, one image at a time."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vambrace.ops.placement import place, smooth


def images(n: int = 6, height: int = 9, width: int = 7) -> torch.Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_place_is_interpolate_and_pad() -> None:
    given = images(40)
    generator = torch.Generator().manual_seed(1)
    tall = torch.randint(1, 10, (40,), generator=generator)
    wide = torch.randint(1, 8, (40,), generator=generator)
    top = (torch.rand(40, generator=generator) * (10 - tall)).long()
    left = (torch.rand(40, generator=generator) * (8 - wide)).long()
    found = place(given, height=tall, width=wide, top=top, left=left)
    for row in range(40):
        size = int(tall[row]), int(wide[row])
        small = F.interpolate(given[row : row + 1], size=size, mode="bilinear", align_corners=False)
        over, before = int(top[row]), int(left[row])
        expected = F.pad(small, (before, 7 - size[1] - before, over, 9 - size[0] - over))
        torch.testing.assert_close(found[row : row + 1], expected, rtol=0, atol=1e-12)


def test_a_whole_image_comes_back_bit_for_bit() -> None:
    for dtype in (torch.float32, torch.float64):
        given, whole = images().to(dtype), torch.zeros(6, dtype=torch.int64)
        assert torch.equal(place(given, height=whole + 9, width=whole + 7, top=whole, left=whole), given)


def test_gradients_of_place_are_right() -> None:
    given, zero = images(2, 5, 5).requires_grad_(), torch.zeros(2, dtype=torch.int64)
    assert torch.autograd.gradcheck(
        lambda image: place(image, height=zero + 3, width=zero + 4, top=zero + 1, left=zero), given
    )


@pytest.mark.parametrize("size", [1, 3, 5, 15])
def test_smooth_is_a_convolution_with_a_gaussian(size: int) -> None:
    given = images()
    places = torch.arange(size, dtype=torch.float64) - size // 2
    line = torch.exp(-0.5 * (places / (max(size // 2, 1) / 3)) ** 2)
    weights = torch.outer(line, line) / line.sum() ** 2
    kernel = weights.expand(3, 1, size, size)
    expected = F.conv2d(given, kernel, padding=size // 2, groups=3)
    torch.testing.assert_close(smooth(given, size), expected, rtol=0, atol=1e-12)
    assert (size == 1) == torch.equal(smooth(given, size), given)


def test_the_middle_of_a_large_image_keeps_its_mean() -> None:
    flat = torch.ones(1, 1, 31, 31, dtype=torch.float64)
    assert smooth(flat, 15)[0, 0, 15, 15].item() == pytest.approx(1.0, abs=1e-12)

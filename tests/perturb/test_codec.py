"""JPEG as a perturbation; the round trip itself is tested against Pillow in tests/ops/test_jpeg.py."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image, features

from vambrace.core.access import Bounds
from vambrace.errors import ConfigError
from vambrace.perturb import Jpeg
from vambrace.testing.perturbations import sample_images


@pytest.mark.skipif(not features.check_feature("libjpeg_turbo"), reason="this Pillow has another JPEG library")
@pytest.mark.parametrize(("side", "qualities"), [(32, (80, 65, 58, 50, 40)), (224, (25, 18, 15, 10, 7))])
@pytest.mark.parametrize("channels", [1, 3])
def test_equals_saving_and_opening_with_pillow(side: int, qualities: tuple[int, ...], channels: int) -> None:
    image = (sample_images(1, (channels, side, side)) * 255).round()
    array = image[0].to(torch.uint8).permute(1, 2, 0).numpy()
    picture = Image.fromarray(array.squeeze() if channels == 1 else array)
    for severity, quality in enumerate(qualities, 1):
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=quality)
        expected = np.array(Image.open(stream)).reshape(side, side, channels).transpose(2, 0, 1)
        changed = Jpeg()(image / 255, severity=severity)
        np.testing.assert_array_equal((changed[0] * 255).round().numpy(), expected)
        wide = Jpeg()(image, severity=severity, bounds=Bounds(0, 255))
        np.testing.assert_allclose(wide[0].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("channels", [2, 4])
def test_other_channels_are_refused(channels: int) -> None:
    with pytest.raises(ConfigError) as caught:
        Jpeg()(torch.rand(1, channels, 8, 8), severity=1)
    assert caught.value.code == "E195"


def test_the_result_is_on_the_8_bit_grid() -> None:
    changed = Jpeg()(sample_images(3, (3, 20, 30)).double(), severity=2) * 255
    torch.testing.assert_close(changed, changed.round(), atol=1e-9, rtol=0)


def test_no_gradient_and_no_failure() -> None:
    images = sample_images(1, (1, 8, 8)).requires_grad_()
    assert not Jpeg()(images, severity=1).requires_grad


@pytest.mark.parametrize(("value", "expected"), [(100.4, 100), (100.6, 101), (254.7, 255)])
def test_values_are_rounded_and_not_cut(value: float, expected: int) -> None:
    """Cutting off would darken every image by half a step."""
    flat = torch.full((1, 1, 8, 8), value)
    changed = Jpeg(qualities=(100, 90, 80, 70, 60))(flat, severity=1, bounds=Bounds(0, 255))
    torch.testing.assert_close(changed, torch.full((1, 1, 8, 8), float(expected)), atol=1e-3, rtol=0)

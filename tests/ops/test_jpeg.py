"""The JPEG round trip against Pillow, bit for bit."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from vambrace.ops.jpeg import CHROMA_TABLE, LUMA_TABLE, quantisation, round_trip

# The classic libjpeg 7 and later scales chroma differently; libjpeg-turbo is what Pillow ships.
turbo = pytest.mark.skipif(not features.check_feature("libjpeg_turbo"), reason="this Pillow has another JPEG library")


def by_pillow(pixels: torch.Tensor, quality: int) -> torch.Tensor:
    decoded = []
    for image in pixels.to(torch.uint8).numpy():
        picture = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0).copy())
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=quality)
        array = np.array(Image.open(stream))
        decoded.append(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))
    return torch.from_numpy(np.stack(decoded)).int()


def picture(kind: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if kind == "noise":
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.int32)
    if kind == "black and white":
        return torch.randint(0, 2, shape, generator=generator, dtype=torch.int32) * 255
    small = torch.rand(*shape[:2], 3, 3, generator=generator) * 255
    return torch.nn.functional.interpolate(small, shape[2:], mode="bicubic").clamp(0, 255).round().int()


@turbo
@settings(max_examples=150)
@given(
    kind=st.sampled_from(["noise", "black and white", "smooth"]),
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    quality=st.integers(1, 100),
    seed=st.integers(0, 2**31),
)
def test_equals_pillow(kind: str, channels: int, height: int, width: int, quality: int, seed: int) -> None:
    pixels = picture(kind, (2, channels, height, width), seed)
    assert torch.equal(round_trip(pixels, quality=quality).cpu(), by_pillow(pixels, quality))


@turbo
@pytest.mark.parametrize("quality", [7, 25, 50, 95])
def test_equals_pillow_on_a_large_image(quality: int) -> None:
    pixels = picture("smooth", (1, 3, 219, 227), 1) // 2 + picture("noise", (1, 3, 219, 227), 2) // 2
    assert torch.equal(round_trip(pixels, quality=quality).cpu(), by_pillow(pixels, quality))


def test_quantisation_at_known_qualities() -> None:
    assert quantisation(50, LUMA_TABLE).tolist() == [list(row) for row in LUMA_TABLE]
    assert quantisation(100, CHROMA_TABLE).unique().tolist() == [1]
    assert quantisation(1, CHROMA_TABLE).unique().tolist() == [255]


def test_flat_images_stay_flat_and_black_stays_black() -> None:
    for value in (0, 1, 127, 200, 255):
        flat = torch.full((1, 1, 9, 10), value)
        assert (round_trip(flat, quality=90) - flat).abs().max() <= 2
        assert round_trip(flat, quality=90).unique().numel() == 1


def test_a_sample_does_not_depend_on_its_company() -> None:
    pixels = picture("noise", (7, 3, 11, 21), 3)
    together = round_trip(pixels, quality=20)
    for i in range(7):
        assert torch.equal(round_trip(pixels[i : i + 1], quality=20), together[i : i + 1])


def test_quality_is_not_ignored() -> None:
    pixels = picture("noise", (4, 3, 32, 32), 4)
    errors = [float((round_trip(pixels, quality=q) - pixels).double().square().mean()) for q in (95, 50, 10)]
    assert errors[0] < errors[1] < errors[2]


def test_no_images_is_fine() -> None:
    assert round_trip(torch.zeros(0, 3, 9, 9, dtype=torch.int32), quality=50).shape == (0, 3, 9, 9)

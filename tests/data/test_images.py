from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from data.hostile.samples import encoded, pixels, png
from vambrace.data.images import FORMATS, Unusable, decode_image, fitted, image_format, resized

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_lossless_formats_keep_every_pixel(kind: str, options: dict, shape: tuple[int, ...]) -> None:
    stored = pixels(0, shape)
    data = encoded(stored, kind, **options)
    expected = stored[None] if stored.ndim == 2 else stored.transpose(2, 0, 1)
    if kind == "WEBP" and stored.ndim == 2:
        expected = np.repeat(expected, 3, axis=0)  # WebP has no grey
    assert image_format(data[:16]) == kind
    assert np.array_equal(decode_image(data), expected)


def test_jpeg_is_pillow() -> None:
    data = encoded(pixels(0, (16, 16, 3)), "JPEG")
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(decode_image(data), np.asarray(image).transpose(2, 0, 1))


@pytest.mark.parametrize("kind", ["GIF", "PPM", "ICO", "TGA", "DDS"])
def test_other_formats_are_refused(kind: str) -> None:
    with pytest.raises(Unusable, match=", ".join(FORMATS)):
        decode_image(encoded(pixels(0, (16, 16, 3)), kind))


ORIENTED = {
    1: lambda image: image,
    2: np.fliplr,
    3: lambda image: np.rot90(image, 2),
    4: np.flipud,
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.rot90(image, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", ORIENTED)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 3)])
def test_every_orientation(orientation: int, kind: str, shape: tuple[int, ...]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = pixels(1, shape)
    upright = ORIENTED[orientation](stored)
    expected = upright[None] if upright.ndim == 2 else upright.transpose(2, 0, 1)
    assert np.array_equal(decode_image(encoded(stored, kind, exif=exif)), expected)


def test_multi_picture_jpeg_gives_its_first() -> None:
    """Cameras write these for ordinary photographs."""
    first, other = (Image.fromarray(pixels(seed, (16, 16, 3))) for seed in range(2))
    data = encoded(first, "MPO", save_all=True, append_images=[other])
    alone = encoded(first, "JPEG")
    assert np.array_equal(decode_image(data), decode_image(alone))


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_16_bit_tiff_keeps_the_high_byte(dtype: str) -> None:
    stored = np.arange(0, 65536, 4096, dtype=np.uint16).reshape(4, 4) + np.arange(16, dtype=np.uint16).reshape(4, 4)
    image = Image.frombytes("I;16" if dtype[0] == "<" else "I;16B", (4, 4), stored.astype(dtype).tobytes())
    assert np.array_equal(decode_image(encoded(image, "TIFF")), (stored >> 8)[None])


def test_one_bit() -> None:
    stored = pixels(0, (8, 8)) > 127
    assert np.array_equal(decode_image(encoded(stored)), np.where(stored, 255, 0)[None])


def test_channels() -> None:
    grey, colour = pixels(0), pixels(0, (4, 4, 3))
    assert np.array_equal(decode_image(encoded(grey), channels=3), np.stack([grey] * 3))
    assert np.array_equal(decode_image(encoded(grey), channels=1), grey[None])
    luma = np.asarray(Image.fromarray(colour).convert("L"))[None]
    assert np.array_equal(decode_image(encoded(colour), channels=1), luma)
    assert abs(luma[0] - colour @ [0.299, 0.587, 0.114]).max() <= 1


def test_pixel_cap_comes_before_decoding() -> None:
    with pytest.raises(Unusable, match="has 5 x 4 pixels, over the cap of 1.9e-05 million"):
        decode_image(png(5, 4), max_pixels=19)
    assert decode_image(png(5, 4), max_pixels=20).shape == (1, 4, 5)


def test_the_hosts_pillow_settings_neither_matter_nor_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    whole = encoded(pixels(0, (64, 64)))
    with pytest.raises(Unusable, match="cannot be decoded"):
        decode_image(whole[: len(whole) // 2])
    assert decode_image(whole).shape == (1, 64, 64)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    assert Image.MAX_IMAGE_PIXELS == 1


def test_threads_do_not_disturb_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 7)
    opening, met, done = Image.open, threading.Event(), threading.Event()
    first = threading.Lock()

    def interleaved(*given, **options):
        """The first to open waits for a second, and the second until the first is through: the worst order there is."""
        if first.acquire(blocking=False):
            met.wait(0.3)
        else:
            met.set()
            done.wait(0.3)
        return opening(*given, **options)

    monkeypatch.setattr(Image, "open", interleaved)
    one, other = pixels(0, (9, 9)), pixels(1, (9, 9))
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(decode_image, encoded(image)) for image in (one, other)]
        waiting[0].add_done_callback(lambda _: done.set())
        assert all(np.array_equal(w.result()[0], image) for w, image in zip(waiting, (one, other), strict=True))
    assert Image.MAX_IMAGE_PIXELS == 7


@given(SIZES, SIZES)
def test_center_covers_and_keeps_the_ratio(source: tuple[int, int], target: tuple[int, int]) -> None:
    rows, columns = fitted(source, target, "center")
    assert rows >= target[0]
    assert columns >= target[1]
    assert rows == target[0] or columns == target[1]
    assert abs(rows * source[1] - columns * source[0]) <= max(source) + max(target) * max(source)
    assert fitted(source, target, "squash") == target


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ((480, 640), (224, 224), (224, 298)),  # torchvision's Resize(224): int(224 * 640 / 480)
        ((640, 480), (224, 224), (298, 224)),
        ((100, 100), (50, 80), (80, 80)),
        ((10, 40), (20, 20), (20, 80)),
    ],
)
def test_center_geometry(source, target, expected) -> None:
    assert fitted(source, target, "center") == expected


def triangle_weights(source: int, target: int) -> np.ndarray:
    """Bilinear with antialiasing along one axis, from its definition: a triangle as wide as the reduction."""
    width = max(source / target, 1)
    centres = (np.arange(target)[:, None] + 0.5) * source / target
    weights = np.clip(1 - abs(np.arange(source) + 0.5 - centres) / width, 0, None)
    return weights / weights.sum(axis=1, keepdims=True)


@settings(max_examples=60)
@given(SIZES, SIZES, st.sampled_from(["squash", "center"]), st.sampled_from([np.uint8, np.float32]))
def test_resize_is_antialiased_bilinear(source, target, resize, dtype) -> None:
    stored = pixels(3, (2, *source)).astype(dtype)
    ours = resized(stored, target, resize)
    assert ours.dtype == dtype
    assert ours.shape == (2, *target)
    rows, columns = fitted(source, target, resize)
    scaled = triangle_weights(source[0], rows) @ stored @ triangle_weights(source[1], columns).T
    top, left = round((rows - target[0]) / 2), round((columns - target[1]) / 2)
    cropped = scaled[:, top : top + target[0], left : left + target[1]]
    assert abs(ours - cropped).max() <= (1.01 if dtype == np.uint8 else 1e-3)


def test_resize_takes_the_average_when_it_shrinks() -> None:
    """Negative control for antialiasing: a fine checkerboard becomes grey, not black or white."""
    board = np.indices((64, 64)).sum(axis=0)[None] % 2 * 255
    assert abs(resized(board.astype(np.uint8), (8, 8), "squash").astype(int) - 127).max() <= 2


@settings(max_examples=150)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "TIFF"]), st.data())
def test_mutated_files_decode_or_say_why(kind: str, draw: st.DataObject) -> None:
    data = bytearray(encoded(pixels(0, (8, 8, 3)), kind))
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        decoded = decode_image(bytes(data[: draw.draw(st.integers(0, len(data)))]))
    except Unusable as error:
        assert " at 0x" not in str(error)  # noqa: PT017  either outcome is right
    else:
        assert decoded.dtype == np.uint8

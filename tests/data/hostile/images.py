"""Builders of hostile and awkward images, in class folders."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from data.hostile.samples import Case, chunk, encoded, one_class, pixels, png, put


def _reads(source: Path, expected: np.ndarray) -> Case:
    """A case of one image that must come out as `expected` (h, w) or (h, w, 3)."""
    planes = expected[None] if expected.ndim == 2 else expected.transpose(2, 0, 1)
    return Case(source, pixels=[planes], labels=(0,))


def png_50k_header(folder: Path) -> Case:
    return Case(one_class(folder, png(50_000, 50_000), good=2))


def webp_largest_header(folder: Path) -> Case:
    data = bytearray(encoded(pixels(0, (4, 4, 3)), "WEBP", lossless=True))
    at = data.index(b"VP8L") + 9  # chunk name, length, signature byte; then two 14-bit sizes, less one
    data[at : at + 4] = struct.pack("<I", struct.unpack("<I", data[at : at + 4])[0] & ~0xFFFFFFF | 0xFFFFFFF)
    return Case(one_class(folder, bytes(data), good=2))


def jpeg_truncated(folder: Path) -> Case:
    data = encoded(pixels(0, (64, 64, 3)), "JPEG")
    return Case(one_class(folder, data[: len(data) // 2], good=2))


def png_truncated(folder: Path) -> Case:
    data = encoded(pixels(0, (64, 64, 3)))
    return Case(one_class(folder, data[: len(data) // 2], good=2))


def image_zero_size(folder: Path) -> Case:
    return Case(one_class(folder, b"", good=2))


def png_zero_width(folder: Path) -> Case:
    return Case(one_class(folder, png(0, 4), good=2))


def one_pixel_among_others(folder: Path) -> Case:
    put(folder / "cat" / "1.png", encoded(pixels(0, (1, 1))))
    return Case(one_class(folder, encoded(pixels(1))))


def one_pixel(folder: Path) -> Case:
    return _reads(one_class(folder, encoded(pixels(0, (1, 1)))), pixels(0, (1, 1)))


def cmyk(folder: Path) -> Case:
    inks = Image.merge("CMYK", [Image.fromarray(pixels(seed)) for seed in range(4)])
    expected = np.stack([np.asarray(plane, np.float64) for plane in inks.split()], axis=-1)
    black = 255 - expected[..., 3:]
    source = one_class(folder, encoded(inks, "TIFF"), name="0.tif")
    return _reads(source, np.rint((255 - expected[..., :3]) * black / 255).astype(np.uint8))


def grey_16_bit(folder: Path) -> Case:
    grey = np.array([[0, 255, 256], [257, 32768, 65535]], np.uint16)
    return _reads(
        one_class(folder, png(3, 2, depth=16, rows=grey.astype(">u2").tobytes())), (grey >> 8).astype(np.uint8)
    )


def colour_16_bit(folder: Path) -> Case:
    colour = np.random.default_rng(0).integers(0, 65536, (2, 3, 3), dtype=np.uint16)
    data = png(3, 2, depth=16, colour=2, rows=colour.astype(">u2").tobytes())
    return _reads(one_class(folder, data), (colour >> 8).astype(np.uint8))


def palette(folder: Path) -> Case:
    indices = pixels(0) % 4
    image = Image.fromarray(indices)
    image.putpalette(bytes(range(12)))
    colours = np.arange(12, dtype=np.uint8).reshape(4, 3)
    image.info.clear()
    return _reads(one_class(folder, encoded(image)), colours[indices])


def alpha_opaque(folder: Path) -> Case:
    colour = pixels(0, (4, 4, 4))
    colour[..., 3] = 255
    return _reads(one_class(folder, encoded(colour)), colour[..., :3])


def alpha_transparent(folder: Path) -> Case:
    colour = pixels(0, (4, 4, 4))
    colour[..., 3] = 255
    colour[0, 0, 3] = 254
    return Case(one_class(folder, encoded(colour), good=2))


def palette_transparent(folder: Path) -> Case:
    image = Image.fromarray(pixels(0) % 4)
    image.putpalette(bytes(range(12)))
    return Case(one_class(folder, encoded(image, transparency=1), good=2))


def float_tiff(folder: Path) -> Case:
    return Case(one_class(folder, encoded(pixels(0).astype(np.float32), "TIFF"), good=2))


def _frames() -> list[Image.Image]:
    return [Image.fromarray(pixels(seed, (4, 4, 3))) for seed in range(3)]


def animated_png(folder: Path) -> Case:
    first, *others = _frames()
    return Case(one_class(folder, encoded(first, save_all=True, append_images=others), good=2))


def animated_webp(folder: Path) -> Case:
    first, *others = _frames()
    return Case(one_class(folder, encoded(first, "WEBP", save_all=True, append_images=others, lossless=True), good=2))


def many_paged_tiff(folder: Path) -> Case:
    first, *others = _frames()
    return Case(one_class(folder, encoded(first, "TIFF", save_all=True, append_images=others), good=2))


def gif(folder: Path) -> Case:
    return Case(one_class(folder, encoded(pixels(0), "GIF"), good=2))


def exif_rotated(folder: Path) -> Case:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter: the first row is the right-hand side
    stored = pixels(0, (3, 5))
    return _reads(one_class(folder, encoded(stored, exif=exif)), np.rot90(stored, -1))


def exif_broken(folder: Path) -> Case:
    broken = chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff garbage")
    return _reads(one_class(folder, png(4, 4, rows=pixels(0).tobytes(), extra=broken)), pixels(0))


def png_named_jpg(folder: Path) -> Case:
    return _reads(one_class(folder, encoded(pixels(0)), name="0.jpg"), pixels(0))


def text_named_png(folder: Path) -> Case:
    return Case(one_class(folder, b"not a picture", good=2))


def png_text_bomb(folder: Path) -> Case:
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**26)))
    return Case(one_class(folder, png(4, 4, extra=bomb), good=2))


def png_profile_bomb(folder: Path) -> Case:
    bomb = chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(2**26)))
    return Case(one_class(folder, png(4, 4, extra=bomb), good=2))


def grey_among_colour(folder: Path) -> Case:
    put(folder / "cat" / "1.png", encoded(pixels(0, (4, 4, 3))))
    return Case(one_class(folder, encoded(pixels(1))))


def class_less_folder(folder: Path) -> Case:
    for at in range(3):
        put(folder / f"{at}.png", encoded(pixels(at)))
    return Case(folder)


def empty_folder(folder: Path) -> Case:
    return Case(folder)


def folder_named_png(folder: Path) -> Case:
    put(folder / "cat" / "x.png" / "1.png", encoded(pixels(1)))
    one_class(folder, encoded(pixels(0)))
    return Case(folder, pixels=[pixels(0)[None], pixels(1)[None]], labels=(0, 0))


def pipe_named_png(folder: Path) -> Case:
    one_class(folder, encoded(pixels(0)), good=2)
    os.mkfifo(folder / "cat" / "9.png")
    return Case(folder)


def one_bad_of_many(folder: Path) -> Case:
    one_class(folder, encoded(pixels(0))[:40], good=119)
    names = sorted(f"{at}.png" for at in range(1, 120))
    return Case(folder, pixels=[pixels(int(name[:-4]))[None] for name in names], labels=(0,) * 119, skipped=1)


def broken_link(folder: Path) -> Case:
    one_class(folder, encoded(pixels(0)), good=2)
    (folder / "cat" / "9.png").symlink_to("gone.png")
    return Case(folder)


def link_to_above(folder: Path) -> Case:
    one_class(folder, encoded(pixels(0)), good=2)
    (folder / "cat" / "loop").symlink_to("..")
    return Case(folder)


def name_not_utf8(folder: Path) -> Case:
    source = one_class(folder, encoded(pixels(0)), name=os.fsdecode(b"x\xe9.png"))
    return _reads(source, pixels(0))


def escaping_names(folder: Path) -> Case:
    names = ["$(touch canary)", "<img src=x onerror=alert(1)>", "a\nb\x1b[2J", "{{7*7}}"]
    for at, name in enumerate(names):
        put(folder / name / f'"{at}";--.png', encoded(pixels(at)))
    return Case(folder, pixels=[pixels(at)[None] for at in range(4)], labels=(0, 1, 2, 3))

"""One encoded image to pixels, by stated rules; what cannot be decoded by them is refused with its reason.

| found | becomes |
|---|---|
| PNG, JPEG, WebP, BMP, TIFF, told by the first bytes, whatever the name says | decoded; any other format is refused |
| EXIF orientation | applied |
| 1 bit, 8-bit grey | one channel |
| RGB, palette, YCbCr | three channels |
| CMYK | three channels by Pillow's rule, without colour profile |
| 16 bits a channel | the high byte of each |
| alpha, all opaque | dropped |
| alpha, any pixel transparent | refused: the background is a guess |
| more than one frame (APNG, WebP, TIFF) | refused; a camera's multi-picture JPEG gives its first |
| LAB, 32-bit or floating-point pixels | refused |
| more than 64 million pixels by the header | refused before decoding |
| compressed text or profiles that unpack to megabytes | refused |

Gamma and colour profiles are ignored, as nearly all training code does. `channels` 3 repeats grey, 1 takes ITU-R
601 luma. `resize` is bilinear with antialiasing (support grows with the reduction), on 8-bit pixels, as Pillow and
torchvision do it.

    >>> fitted((40, 80), (20, 20), "center")
    (20, 40)
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vambrace.core.contract import Resize

__all__ = ["FORMATS", "MAX_PIXELS", "Unusable", "decode_image", "fitted", "image_format", "resized"]

FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")

MAX_PIXELS = 64_000_000

_PILLOW = threading.Lock()

_GREY = {"1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N"}
_COLOUR = {"RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "YCbCr", "CMYK"}
_ALPHA = {"LA", "La", "RGBA", "RGBa", "PA"}
_OTHERS = {
    b"GIF8": "a GIF",
    b"PK\x03\x04": "a zip archive",
    b"\x00\x00\x01\x00": "an icon",
    b"8BPS": "a Photoshop file",
    b"%PDF": "a PDF",
    b"\x00\x00\x00\x0cjP": "a JPEG 2000",
    b"\xff\x0a": "a JPEG XL",
    b"SIMPLE": "a FITS file",
    b"<svg": "an SVG",
    b"<?xm": "an XML file",
    b"<!DO": "a web page",
    b"<htm": "a web page",
}


class Unusable(ValueError):  # noqa: N818  never reaches a user: it becomes a skipped sample with this reason
    """One image that cannot be used; the text is the reason, and reads on after the image's name."""


def image_format(head: bytes) -> str | None:
    r"""Which of `FORMATS` a file is, by its first 16 bytes; None for anything else.

    >>> image_format(b"\x89PNG\r\n\x1a\n"), image_format(b"GIF89a")
    ('PNG', None)
    """
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if head.startswith(b"BM") and head[6:10] == b"\0\0\0\0":
        return "BMP"
    return None


def decode_image(
    data: bytes,
    *,
    channels: Literal[1, 3] | None = None,
    size: tuple[int, int] | None = None,
    resize: Resize = "none",
    max_pixels: int = MAX_PIXELS,
) -> NDArray[np.uint8]:
    """Pixels uint8 (channels, height, width).

    Args:
        data: the whole file.
        channels: 1 or 3; None: as stored.
        size: (height, width) to resize to.
        resize: "none" leaves the size as it is.
        max_pixels: cap on width x height, read from the header.

    Raises:
        Unusable: with the reason.
    """
    kind = image_format(data[:16])
    if kind is None:
        raise Unusable(_not_an_image(data))
    with _strict_pillow():
        try:
            pixels = _pixels(data, kind, channels, max_pixels)
        except Unusable:
            raise
        except UnidentifiedImageError as error:
            raise Unusable(f"is a {kind} whose header cannot be read") from error
        except Exception as error:  # hostile bytes make Pillow's plug-ins raise nearly anything
            raise Unusable(f"cannot be decoded: {_reason(error)}") from error
    return pixels if size is None or resize == "none" else resized(pixels, size, resize)


def fitted(source: tuple[int, int], target: tuple[int, int], resize: Resize) -> tuple[int, int]:
    """(height, width) to scale `source` to, before the centre is cropped to `target`."""
    (height, width), (rows, columns) = source, target
    if resize == "squash":
        return target
    if rows * width >= columns * height:
        return rows, max(columns, width * rows // height)
    return max(rows, height * columns // width), columns


def resized(pixels: NDArray[Any], size: tuple[int, int], resize: Resize) -> NDArray[Any]:
    """Pixels uint8 or float32 (channels, height, width) at `size`, which "center" crops from the centre."""
    if pixels.shape[1:] == size or resize == "none":
        return pixels
    rows, columns = fitted((pixels.shape[1], pixels.shape[2]), size, resize)
    top, left = round((rows - size[0]) / 2), round((columns - size[1]) / 2)
    scaled = [
        np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize((columns, rows), Image.Resampling.BILINEAR))
        for plane in pixels
    ]
    return np.ascontiguousarray(np.stack(scaled)[:, top : top + size[0], left : left + size[1]])


def _pixels(data: bytes, kind: str, channels: Literal[1, 3] | None, max_pixels: int) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=[kind]) as opened:
        width, height = opened.size
        if width < 1 or height < 1:
            raise Unusable(f"has {width} x {height} pixels")
        if width * height > max_pixels:
            raise Unusable(f"has {width} x {height} pixels, over the cap of {_millions(max_pixels)}")
        if kind != "JPEG" and getattr(opened, "is_animated", False):
            raise Unusable(f"is an animated or many-paged {kind}: which frame counts is a guess; save one frame")
        if opened.mode not in _GREY | _COLOUR:
            raise Unusable(f"has {opened.mode} pixels; save it as 8-bit grey or RGB")
        opened.load()
        # Metadata too broken to hold an orientation has none; the pixels themselves are already decoded.
        with suppress(Exception):
            ImageOps.exif_transpose(opened, in_place=True)
        grey = opened.mode in _GREY
        image = _opaque(opened, grey=grey)
        if image.mode.startswith("I;16"):
            return _channels((np.asarray(image) >> 8).astype(np.uint8)[None], channels)
        plain = "L" if grey else "RGB"
        converted = np.asarray(image if image.mode == plain else image.convert(plain))
    return _channels(converted[None] if grey else converted.transpose(2, 0, 1), channels)


def _opaque(image: Image.Image, *, grey: bool) -> Image.Image:
    """The image without its alpha channel, which must be opaque everywhere."""
    if image.mode not in _ALPHA and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        raise Unusable("has a transparent grey level; flatten it on the background that the model was trained with")
    image = image.convert("LA" if grey else "RGBA")
    lowest, _ = image.getchannel("A").getextrema()
    if lowest != 255:
        raise Unusable("has transparent pixels; flatten it on the background that the model was trained with")
    return image


def _channels(pixels: NDArray[np.uint8], channels: Literal[1, 3] | None) -> NDArray[np.uint8]:
    """Pixels (1 or 3, height, width) with `channels` channels, contiguous."""
    if channels == 3 and len(pixels) == 1:
        return np.repeat(pixels, 3, axis=0)
    if channels == 1 and len(pixels) == 3:
        return np.asarray(Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).convert("L"))[None]
    return np.ascontiguousarray(pixels)


@contextmanager
def _strict_pillow() -> Generator[None]:
    """Pillow as we need it, whatever the host program has set; its switches are global, hence the lock.

    No half-decoded images, nothing on the terminal, and its own pixel cap off: ours is stricter and says the size.
    """
    with _PILLOW, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, None
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = theirs


def _not_an_image(data: bytes) -> str:
    if not data:
        return "is an empty file"
    found = next((name for magic, name in _OTHERS.items() if data.startswith(magic)), "of an unknown type")
    return f"is {found}, not one of {', '.join(FORMATS)}"


def _reason(error: Exception) -> str:
    """The first line of a foreign error, short, without what differs from run to run."""
    line = (str(error).splitlines() or [""])[0]
    return line[:100] if line and line.isprintable() and " at 0x" not in line else type(error).__name__


def _millions(pixels: int) -> str:
    return f"{pixels / 1e6:g} million"

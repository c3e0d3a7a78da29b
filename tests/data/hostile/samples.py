"""What the builders share: a case, small images whose pixels are known, and PNG files made chunk by chunk."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


@dataclass
class Case:
    """A source, keyword arguments of `data.load`, and what must come out of it where it must be read.

    Attributes:
        source: what is loaded.
        options: keyword arguments of `data.load`.
        pixels: expected decoded samples, uint8, in sample order; None where the row is refused.
        labels: expected labels.
        skipped: how many images are left out.
    """

    source: Path
    options: dict[str, Any] = field(default_factory=dict)
    pixels: list[np.ndarray] | None = None
    labels: tuple[int, ...] = ()
    skipped: int = 0


def pixels(seed: int = 0, shape: tuple[int, ...] = (4, 4)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(array: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, *, depth: int = 8, colour: int = 0, rows: bytes | None = None, extra: bytes = b""
) -> bytes:
    """A PNG from its parts; `rows` are the samples, one line after the other, each `len(rows) / height` bytes."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    if rows is None:
        rows = bytes(width * height) if width * height < 10**6 else b"\0"
    step = max(1, len(rows) // max(1, height)) if width * height < 10**6 else len(rows)
    lines = b"".join(b"\0" + rows[at : at + step] for at in range(0, len(rows), step))
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(lines))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def one_class(folder: Path, data: bytes, *, good: int = 0, name: str = "0.png") -> Path:
    """A folder with the class "cat", which holds `data` and then `good` plain images."""
    put(folder / "cat" / name, data)
    for at in range(1, good + 1):
        put(folder / "cat" / f"{at}.png", encoded(pixels(at)))
    return folder

"""Saved inputs as small PNG pictures inside the page: clean, changed, and their difference made visible.

An evidence file is opened only if it lies below the run directory, is no link, and hashes to its own
name; anything else becomes a `Missing` with its reason, never a failure of the report. Pictures of a page
share one budget of bytes: they are made smaller, all alike, until they fit, and then fewer.

The difference is scaled by a round factor, the largest at which nothing clips, around mid-grey; where a
picture must be made smaller the difference keeps single pixels (nearest) instead of their mean, because
the mean of an attack's pattern is grey.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from markupsafe import Markup
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from vambrace.core.findings import Evidence

    Pixels = NDArray[np.uint8]
    Floats = NDArray[np.float64]

__all__ = ["LARGEST_FILE", "Missing", "Shown", "Strip", "read_strip", "render"]

LARGEST_FILE = 64 * 2**20
"""Bytes of the largest evidence file that is opened."""

_NAME = re.compile(r"evidence/([0-9a-f]{64})\.safetensors")
_SIDES = (256, 192, 144, 112, 88, 64)  # longest sides that are tried, in pixels
_PIXELATED_BELOW = 96
_BLURRED_SIDE = 6  # what is left of a picture that must not be recognised
_FACTORS = (0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 500, 1000)


@dataclass(frozen=True, slots=True)
class Missing:
    """A picture that cannot be shown, and why, in one sentence with a code."""

    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Strip:
    """Three 8-bit pictures (height, width) or (height, width, 3) of one sample, at most 256 pixels a side."""

    clean: Pixels
    changed: Pixels
    difference: Pixels
    factor: float
    """What the difference was multiplied by."""
    stretched: bool
    """Whether the range of values was taken from the picture because the model has no bounds."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A strip as three data URIs; `pixelated` asks for hard pixels when drawn larger."""

    clean: Markup
    changed: Markup
    difference: Markup
    factor: str
    width: int
    height: int
    pixelated: bool
    stretched: bool


def read_strip(run: Path, evidence: Evidence, bounds: object, *, blur: bool = False) -> Strip | Missing:
    """The pictures of one saved input of the run directory `run`; `bounds` as in `Results.model`."""
    tensors = _read(run, evidence.file)
    if isinstance(tensors, Missing):
        return tensors
    clean, changed = _as_picture(tensors["clean"]), _as_picture(tensors["changed"])
    if clean is None or changed is None:
        shape = " x ".join(map(str, tensors["clean"].shape))
        return Missing(f"The input is no picture: its shape is {shape}.")
    box = _box(bounds, clean.shape)
    low, high = box or (min(clean.min(), changed.min()), max(clean.max(), changed.max()))
    span = np.maximum(np.asarray(high) - np.asarray(low), 1e-12)
    one, other = (clean - low) / span, (changed - low) / span
    difference = other - one
    factor = _factor(float(np.abs(difference).max(initial=0.0)))
    # Blurring really removes what must not be seen: only a few mean values are written to the page.
    side = min(_BLURRED_SIDE, max(1, max(clean.shape[1:]) // 3)) if blur else _SIDES[0]
    return Strip(
        clean=_small(_grey_levels(one), side),
        changed=_small(_grey_levels(other), side),
        difference=_small(_grey_levels(0.5 + difference * factor), side, mean=blur),
        factor=factor,
        stretched=box is None,
    )


def render(strips: Sequence[Strip], budget: int) -> list[Shown | None]:
    """The strips as PNG data URIs of together at most `budget` characters; None for those that found no room."""
    for side in _SIDES:
        made = [_shown(strip, side) for strip in strips]
        if sum(map(_size, made)) <= budget:
            return list(made)
    kept: list[Shown | None] = []
    for one in (_shown(strip, _SIDES[-1]) for strip in strips):
        budget -= _size(one)
        kept.append(one if budget >= 0 else None)
    return kept


def _read(run: Path, name: str) -> dict[str, NDArray[np.generic]] | Missing:
    match = _NAME.fullmatch(name)
    path = run / name
    if not match:
        return Missing("The evidence file has a name that the format does not allow (E555).")
    if path.is_symlink() or not path.is_file() or not path.resolve().is_relative_to(run.resolve()):
        return Missing("The evidence file is not in the run directory (E555).")
    if path.stat().st_size > LARGEST_FILE:
        return Missing("The evidence file is larger than 64 MiB (E555).")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != match.group(1):
        return Missing("The evidence file was changed after it was written (E555).")
    try:
        tensors = cast("dict[str, NDArray[np.generic]]", load(content))
    except (SafetensorError, ValueError, KeyError, TypeError):
        return Missing("The evidence file cannot be read (E555).")
    if not {"clean", "changed"} <= tensors.keys() or tensors["clean"].shape != tensors["changed"].shape:
        return Missing("The evidence file does not hold a clean and a changed input (E555).")
    return tensors


def _as_picture(tensor: NDArray[np.generic]) -> Floats | None:
    """(channels, height, width) with 1 or 3 channels, finite; None for what is no picture."""
    if tensor.dtype.kind not in "fiu":
        return None
    values = np.nan_to_num(tensor.astype(np.float64))
    if values.ndim == 2:
        values = values[None]
    if values.ndim != 3 or 0 in values.shape or min(values.shape[1:]) < 2:
        return None
    return values if values.shape[0] in {1, 3} else values.mean(axis=0, keepdims=True)


def _box(bounds: object, shape: tuple[int, ...]) -> tuple[Floats, Floats] | None:
    """The two ends of the bounds if they broadcast against a picture of `shape`."""
    if not isinstance(bounds, list | tuple) or len(cast("list[object]", bounds)) != 2:
        return None
    try:
        low, high = (np.asarray(end, dtype=np.float64) for end in cast("list[object]", bounds))
        np.broadcast_to(low, shape)
        np.broadcast_to(high, shape)
    except (ValueError, TypeError):
        return None
    return (low, high) if bool(np.all(low < high)) else None


def _factor(largest: float) -> float:
    fits = [factor for factor in _FACTORS if largest * factor <= 0.5]
    return (fits[-1] if fits else _FACTORS[0]) if largest > 0 else 1


def _grey_levels(picture: Floats) -> Pixels:
    """(1 or 3, height, width) in 0..1 to 8-bit (height, width) or (height, width, 3)."""
    levels = np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    return levels[0] if levels.shape[0] == 1 else np.ascontiguousarray(levels.transpose(1, 2, 0))


def _small(pixels: Pixels, side: int, *, mean: bool = True) -> Pixels:
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return pixels
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = Image.Resampling.BOX if mean else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(pixels).resize(size, how), dtype=np.uint8)


def _shown(strip: Strip, side: int) -> Shown:
    clean = _small(strip.clean, side)
    height, width = clean.shape[:2]
    return Shown(
        clean=_uri(clean),
        changed=_uri(_small(strip.changed, side)),
        difference=_uri(_small(strip.difference, side, mean=False)),
        factor=f"{strip.factor:g}",
        width=width,
        height=height,
        pixelated=max(width, height) < _PIXELATED_BELOW,
        stretched=strip.stretched,
    )


def _size(shown: Shown) -> int:
    return len(shown.clean) + len(shown.changed) + len(shown.difference)


def _uri(pixels: Pixels) -> Markup:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", optimize=True)
    # Our own letters and digits: marked as safe, so that they are neither escaped nor shortened on the page.
    return Markup("data:image/png;base64,") + Markup(base64.b64encode(file.getvalue()).decode())  # noqa: S704

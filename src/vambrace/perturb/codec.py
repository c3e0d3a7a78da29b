"""JPEG compression: what an upload, a chat program or a camera does to a picture.

A real round trip: 8-bit rounding, YCbCr, 4:2:0 chroma, 8 x 8 cosine transform, the standard quantisation tables,
and back, bit for bit what Pillow gives for the same 8-bit pixels. One and three channels, any height and width.

    >>> import torch
    >>> ramp = torch.linspace(0, 1, 32).expand(1, 3, 32, 32)
    >>> changed = Jpeg()(ramp, severity=1)
    >>> bool((changed - ramp).abs().max() < 0.05), bool((changed * 255 % 1 < 1e-4).float().mean() > 0.4)
    (True, True)

Not differentiable (the gradient with respect to the inputs is zero); deterministic: no randomness is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vambrace.core.options import Options, require
from vambrace.ops import jpeg
from vambrace.perturb.frame import UNIT, enter, shorter_side
from vambrace.perturb.severity import Published, check_five, level

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from vambrace.core.access import Bounds
    from vambrace.core.rng import Streams

__all__ = ["Jpeg"]

_QUALITIES = Published(small=(80, 65, 58, 50, 40), medium=(65, 58, 50, 40, 25), large=(25, 18, 15, 10, 7))


@dataclass(frozen=True, slots=True, kw_only=True)
class Jpeg(Options):
    """Compress images as JPEG and decompress them.

    Attributes:
        qualities: quality a severity on the usual scale, whole numbers 1 to 100, falling; None takes the
            published values.
    """

    qualities: tuple[int, int, int, int, int] | None = None

    needs_images: ClassVar[bool] = True
    words: ClassVar[str] = "JPEG compression"

    def __post_init__(self) -> None:
        check_five("qualities", self.qualities, low=1, high=100, order="falling")

    def level(self, severity: int, shape: Sequence[int]) -> float:
        """The quality, 1 to 100."""
        return level(self.qualities, _QUALITIES, severity=severity, side=shorter_side(shape))

    def __call__(
        self,
        inputs: Tensor,
        *,
        severity: int,
        rng: Streams | int = 0,
        ids: Tensor | None = None,
        bounds: Bounds = UNIT,
    ) -> Tensor:
        """Images (n, 1 or 3, h, w) inside bounds to images (n, c, h, w) on the 8-bit grid of the bounds.

        Raises:
            ConfigError: E195 for another number of channels, and as every perturbation.
        """
        frame = enter(inputs, severity=severity, rng=rng, ids=ids, bounds=bounds, images=self.needs_images)
        require(
            inputs.shape[1] in (1, 3),
            seen=f"images with {inputs.shape[1]} channels",
            expected="1 channel (grey) or 3 (RGB)",
            fix="leave jpeg out for this model",
            code="E195",
        )
        pixels = (frame.unit.detach() * 255).round().int()
        coded = jpeg.round_trip(pixels, quality=int(self.level(severity, inputs.shape[1:])))
        return frame.leave(coded.to(frame.unit) / 255)

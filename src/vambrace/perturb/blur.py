"""Gaussian blur: what a lens out of focus or a cheap resize does.

A true Gaussian kernel, cut at 4 sigma, with a mirrored border: the mean brightness of every image stays as it was.

    >>> import torch
    >>> edge = torch.zeros(1, 1, 32, 32)
    >>> edge[..., 16:] = 1
    >>> soft = GaussianBlur()(edge, severity=5)
    >>> round(float(soft.mean()), 4), round(float(soft[0, 0, 0, 15]), 2)
    (0.5, 0.3)

Differentiable, deterministic: no randomness is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vambrace.core.options import Options
from vambrace.ops import image
from vambrace.perturb.frame import UNIT, enter, shorter_side
from vambrace.perturb.severity import SIDES, Five, Published, check_five, level, table_side

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from vambrace.core.access import Bounds
    from vambrace.core.rng import Streams

__all__ = ["GaussianBlur"]

_SIGMAS = Published(
    small=(0.4, 0.6, 0.7, 0.8, 1.0), medium=(0.5, 0.75, 1.0, 1.25, 1.5), large=(1.0, 2.0, 3.0, 4.0, 6.0)
)

_LEAST = 0.4  # pixels: 4 % of each pixel then comes from each neighbour


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianBlur(Options):
    """Convolve images with a Gaussian.

    Attributes:
        sigmas: standard deviation a severity in pixels, rising, used as they are. None takes the published
            values, which grow and shrink with the image's shorter side; below 32 pixels only what exceeds 0.4
            does, since a blur of less than 0.4 pixels is none.
    """

    sigmas: Five | None = None

    needs_images: ClassVar[bool] = True
    words: ClassVar[str] = "Gaussian blur"

    def __post_init__(self) -> None:
        check_five("sigmas", self.sigmas, low=0.2, high=1000.0, order="rising")

    def level(self, severity: int, shape: Sequence[int]) -> float:
        """Sigma in pixels."""
        side = shorter_side(shape)
        sigma = level(self.sigmas, _SIGMAS, severity=severity, side=side)
        if self.sigmas is not None or side is None:
            return sigma
        floor = _LEAST if side < SIDES[0] else 0.0
        return floor + (sigma - floor) * side / table_side(side)

    def __call__(
        self,
        inputs: Tensor,
        *,
        severity: int,
        rng: Streams | int = 0,
        ids: Tensor | None = None,
        bounds: Bounds = UNIT,
    ) -> Tensor:
        """Images (n, c, h, w) inside bounds to blurred images (n, c, h, w) inside bounds."""
        frame = enter(inputs, severity=severity, rng=rng, ids=ids, bounds=bounds, images=self.needs_images)
        return frame.leave(image.blur(frame.unit, sigma=self.level(severity, inputs.shape[1:])))

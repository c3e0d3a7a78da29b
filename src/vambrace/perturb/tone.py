"""Contrast: haze, glare, or a screen in the sun.

Every channel of every image moves towards its own mean, so values never fold over and never leave the bounds.

    >>> import torch
    >>> steps = torch.tensor([0.0, 0.25, 0.75, 1.0]).view(1, 1, 2, 2)
    >>> Contrast(factors=(0.8, 0.6, 0.5, 0.4, 0.2))(steps, severity=3).flatten().tolist()
    [0.25, 0.375, 0.625, 0.75]

Differentiable, deterministic: no randomness is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vambrace.core.options import Options
from vambrace.perturb.frame import UNIT, enter, shorter_side
from vambrace.perturb.severity import Five, Published, check_five, level

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from vambrace.core.access import Bounds
    from vambrace.core.rng import Streams

__all__ = ["Contrast"]

_FACTORS = Published(
    small=(0.75, 0.5, 0.4, 0.3, 0.15), medium=(0.4, 0.3, 0.2, 0.1, 0.05), large=(0.4, 0.3, 0.2, 0.1, 0.05)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast(Options):
    """Lower the contrast: (value - mean) * factor + mean, with the mean of each channel of each image.

    Attributes:
        factors: what is left of the contrast a severity, falling, between 0 and 1; None takes the published values.
    """

    factors: Five | None = None

    needs_images: ClassVar[bool] = True
    words: ClassVar[str] = "lower contrast"

    def __post_init__(self) -> None:
        check_five("factors", self.factors, low=0.0, high=1.0, order="falling")

    def level(self, severity: int, shape: Sequence[int]) -> float:
        """The factor: 1 would leave the image as it is, 0 would leave only its mean."""
        return level(self.factors, _FACTORS, severity=severity, side=shorter_side(shape))

    def __call__(
        self,
        inputs: Tensor,
        *,
        severity: int,
        rng: Streams | int = 0,
        ids: Tensor | None = None,
        bounds: Bounds = UNIT,
    ) -> Tensor:
        """Images (n, c, h, w) inside bounds to flatter images (n, c, h, w) inside bounds."""
        frame = enter(inputs, severity=severity, rng=rng, ids=ids, bounds=bounds, images=self.needs_images)
        mean = frame.unit.mean(dim=(-2, -1), keepdim=True)
        return frame.leave((frame.unit - mean) * self.level(severity, inputs.shape[1:]) + mean)

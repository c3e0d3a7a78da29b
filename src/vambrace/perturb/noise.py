"""Gaussian noise: what a sensor adds in low light, independent at every value.

    >>> import torch
    >>> grey = torch.full((2, 1, 28, 28), 0.5)
    >>> noisy = GaussianNoise()(grey, severity=3, rng=0)
    >>> round(float((noisy - grey).std()), 2)
    0.08

Differentiable with respect to the inputs. The noise of a sample has the same pattern at every severity, only larger:
differences between severities are then due to strength, not luck. Works on inputs of any shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vambrace.core.options import Options
from vambrace.ops import draws
from vambrace.perturb.frame import UNIT, enter, shorter_side
from vambrace.perturb.severity import Five, Published, check_five, level

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from vambrace.core.access import Bounds
    from vambrace.core.rng import Streams

__all__ = ["GaussianNoise"]

_SIGMAS = Published(
    small=(0.04, 0.06, 0.08, 0.09, 0.10), medium=(0.04, 0.08, 0.12, 0.15, 0.18), large=(0.08, 0.12, 0.18, 0.26, 0.38)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianNoise(Options):
    """Add independent normal noise to every value and clip to the bounds.

    Attributes:
        sigmas: standard deviation a severity, as a share of the width of the bounds, rising; None takes the
            published values.
    """

    sigmas: Five | None = None

    needs_images: ClassVar[bool] = False
    words: ClassVar[str] = "Gaussian noise"

    def __post_init__(self) -> None:
        check_five("sigmas", self.sigmas, low=1e-6, high=10.0, order="rising")

    def level(self, severity: int, shape: Sequence[int]) -> float:
        """Sigma as a share of the width of the bounds."""
        return level(self.sigmas, _SIGMAS, severity=severity, side=shorter_side(shape))

    def __call__(
        self,
        inputs: Tensor,
        *,
        severity: int,
        rng: Streams | int = 0,
        ids: Tensor | None = None,
        bounds: Bounds = UNIT,
    ) -> Tensor:
        """Inputs (n, ...) inside bounds to noisy inputs (n, ...) inside bounds."""
        frame = enter(inputs, severity=severity, rng=rng, ids=ids, bounds=bounds, images=self.needs_images)
        shape = tuple(inputs.shape[1:])
        stream = frame.rng.child("gaussian_noise")
        noise = draws.normal(stream, frame.ids, shape=shape, dtype=frame.unit.dtype)
        return frame.leave(frame.unit + self.level(severity, shape) * noise)

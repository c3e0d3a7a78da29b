"""Rotation: a tilted camera or a badly fed page.

The image turns about its centre and keeps its size and scale; the direction, clockwise or not, is drawn
for each sample.

    >>> import torch
    >>> bar = torch.zeros(1, 1, 9, 9)
    >>> bar[..., 4, :] = 1
    >>> turned = Rotate(degrees=(10, 20, 30, 45, 90))(bar, severity=5)
    >>> [round(value, 3) for value in turned[0, 0, :, 4].tolist()]
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]

Differentiable with respect to the inputs. Not for tasks where the direction is the label (compass, text orientation).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vambrace.core.options import Options
from vambrace.ops import draws, image
from vambrace.perturb.frame import UNIT, enter
from vambrace.perturb.severity import Five, Published, check_five, level

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from vambrace.core.access import Bounds
    from vambrace.core.rng import Streams

__all__ = ["Rotate"]

_OURS: Five = (5.0, 10.0, 15.0, 20.0, 25.0)
_DEGREES = Published(small=_OURS, medium=_OURS, large=_OURS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotate(Options):
    """Turn images about their centre, bilinear, by the same angle in a direction drawn for each sample.

    Attributes:
        degrees: angle a severity, rising. None takes 5, 10, 15, 20, 25: the corruptions of Hendrycks and
            Dietterich have no rotation, and the 57 degrees that MNIST-C ends with change what a digit is.
        border: what comes in at the corners: "edge" (the nearest border pixel: adds no object and suits any
            background), "low" (the low end of the bounds: black) or "mirror" (a mirror image).
    """

    degrees: Five | None = None
    border: image.Border = "edge"

    needs_images: ClassVar[bool] = True
    words: ClassVar[str] = "rotation"

    def __post_init__(self) -> None:
        check_five("degrees", self.degrees, low=0.01, high=180.0, order="rising")

    def level(self, severity: int, shape: Sequence[int]) -> float:
        """The angle in degrees."""
        del shape
        return level(self.degrees, _DEGREES, severity=severity, side=None)

    def __call__(
        self,
        inputs: Tensor,
        *,
        severity: int,
        rng: Streams | int = 0,
        ids: Tensor | None = None,
        bounds: Bounds = UNIT,
    ) -> Tensor:
        """Images (n, c, h, w) inside bounds to turned images (n, c, h, w) inside bounds."""
        frame = enter(inputs, severity=severity, rng=rng, ids=ids, bounds=bounds, images=self.needs_images)
        direction = draws.signs(frame.rng.child("rotate"), frame.ids, shape=())
        degrees = direction * self.level(severity, inputs.shape[1:])
        return frame.leave(image.rotate(frame.unit, degrees, border=self.border))

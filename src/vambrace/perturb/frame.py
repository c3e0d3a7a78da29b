"""The border that every perturbation crosses: inputs are checked, put on the unit scale, and put back.

Perturbations are defined on values from 0 to 1. `enter` maps the caller's box to that scale, so that the same
severity means the same change for inputs in (0, 1), in (0, 255), or between tensors of bounds; `leave` maps back
and clips. Inputs outside their bounds are refused: normalised inputs would otherwise be treated as dark or
overexposed pictures without a word.

    >>> import torch
    >>> frame = enter(torch.full((1, 1, 2, 2), 51.0), severity=1, rng=0, ids=None, bounds=Bounds(0, 255), images=True)
    >>> round(float(frame.unit.max()), 6), frame.side
    (0.2, 2)
    >>> frame.leave(frame.unit).flatten().tolist()
    [51.0, 51.0, 51.0, 51.0]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import torch
from torch import Tensor

from vambrace.core.access import Bounds
from vambrace.core.options import require
from vambrace.core.rng import Streams, as_streams
from vambrace.errors import ConfigError
from vambrace.perturb.severity import check_severity

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Frame", "Perturbation", "UNIT", "enter", "shorter_side"]

UNIT = Bounds(0.0, 1.0)

# Inputs that left their box by rounding only are pulled back; this is far below one step of 8 bits.
_SLACK = 1e-5


class Perturbation(Protocol):
    """A natural change of the input: what a camera, a scanner or a file format does, with five severities.

    Implementations are frozen `Options`. Guarantees: the result has the shape, dtype and device of the inputs and
    lies inside the bounds; what happens to a sample depends on the stream, its id and the severity only (up to
    kernel rounding); a higher severity is a stronger change; the label is meant to stay right.
    """

    needs_images: ClassVar[bool]
    """Whether inputs must be images (n, c, h, w)."""
    words: ClassVar[str]
    """What it is called in a sentence, such as "Gaussian noise"."""

    def __call__(
        self,
        inputs: Tensor,
        *,
        severity: int,
        rng: Streams | int = 0,
        ids: Tensor | None = None,
        bounds: Bounds = UNIT,
    ) -> Tensor:
        """Inputs (n, ...) to changed inputs (n, ...)."""
        ...

    def level(self, severity: int, shape: Sequence[int]) -> float:
        """The number behind a severity for one sample of this shape, in the unit of the options."""
        ...

    def as_json(self) -> dict[str, object]:
        """The options as JSON data."""
        ...


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Frame:
    """Checked inputs on the unit scale, and the way back.

    Attributes:
        unit: (n, ...) in 0..1, float64 where the inputs are, else float32.
        ids: int64 (n,), the samples' ids.
        rng: where draws come from.
        side: the shorter side of an image; None where inputs are no images.
        bounds: the caller's box, on the device and dtype of the inputs.
        dtype: the inputs' dtype.
    """

    unit: Tensor
    ids: Tensor
    rng: Streams
    side: int | None
    bounds: Bounds
    dtype: torch.dtype

    def leave(self, changed: Tensor) -> Tensor:
        """Values on the unit scale back to the caller's scale and dtype, clipped to the box."""
        low, span = _scale(self.bounds)
        return self.bounds.clip((changed * span + low).to(self.dtype))


def enter(
    inputs: Tensor, *, severity: int, rng: Streams | int, ids: Tensor | None, bounds: Bounds, images: bool
) -> Frame:
    """Check the arguments of a perturbation and put the inputs on the unit scale.

    Raises:
        ConfigError: E190 for a shape that is not images, E191 for inputs outside the bounds or NaN, E192 for a
            dtype that is not floating point, E193 for the severity, E196 for ids that do not match.
    """
    check_severity(severity)
    require(
        inputs.is_floating_point() and inputs.ndim >= 2,
        seen=f"inputs of {inputs.dtype}, shape {tuple(inputs.shape)}",
        expected="floating-point inputs (n, ...)",
        fix="convert with inputs.float(), and give the bounds they lie in, such as Bounds(0, 255)",
        code="E192",
    )
    require(
        not images or (inputs.ndim == 4 and min(inputs.shape[1:]) >= 1),
        seen=f"inputs of shape {tuple(inputs.shape)}",
        expected="images (n, channels, height, width)",
        fix="use a perturbation that works on any input, such as gaussian_noise, or give images",
        code="E190",
    )
    ids = torch.arange(len(inputs), device=inputs.device) if ids is None else ids.to(inputs.device)
    require(
        ids.shape == (len(inputs),) and ids.dtype == torch.int64,
        seen=f"ids of {ids.dtype}, shape {tuple(ids.shape)}",
        expected=f"int64 ids of shape ({len(inputs)},)",
        fix="give one id a sample, or leave ids out to use positions",
        code="E196",
    )
    bounds = bounds.to(inputs)
    low, span = _scale(bounds)
    inside = bounds.contains(inputs.detach(), tolerance=_SLACK * bounds.span)
    if not bool(inside.all()):
        raise ConfigError(
            "E191",
            seen=f"{int((~inside).sum())} of {len(inputs)} inputs outside {_shown(bounds)}: {_range(inputs)}",
            expected="inputs inside their bounds, as the model is fed, before any normalisation",
            fix="give the bounds the inputs lie in, or undo the normalisation and let the model do it (mean, std)",
        )
    compute = torch.float64 if inputs.dtype == torch.float64 else torch.float32
    return Frame(
        unit=((inputs.to(compute) - low) / span).clamp(0, 1),
        ids=ids,
        rng=as_streams(rng),
        side=shorter_side(inputs.shape[1:]),
        bounds=bounds,
        dtype=inputs.dtype,
    )


def shorter_side(shape: Sequence[int]) -> int | None:
    """The shorter side in pixels of one sample (c, h, w); None for any other shape."""
    return min(shape[1], shape[2]) if len(shape) == 3 else None


def _scale(bounds: Bounds) -> tuple[float | Tensor, float | Tensor]:
    """The low end and the width of the box."""
    if isinstance(bounds.low, Tensor) and isinstance(bounds.high, Tensor):
        return bounds.low, bounds.high - bounds.low
    return float(bounds.low), float(bounds.high) - float(bounds.low)


def _shown(bounds: Bounds) -> str:
    if isinstance(bounds.low, Tensor):
        return "their bounds per feature"
    return f"bounds ({bounds.low:g}, {float(bounds.high):g})"


def _range(inputs: Tensor) -> str:
    finite = inputs.detach()[inputs.detach().isfinite()]
    if finite.numel() < inputs.numel():
        return f"{inputs.numel() - finite.numel()} values are NaN or infinite"
    return f"values from {float(finite.min()):g} to {float(finite.max()):g}"

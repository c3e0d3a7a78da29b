"""What a model gives to whoever asks: `Access`, and the `Bounds` of what it may be fed.

>>> Access.SCORES < Access.GRADIENTS
True
>>> Bounds(0.0, 1.0).span
1.0
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, cast

from vambrace.errors import AccessError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["Access", "Bounds", "require_access"]

_LARGEST = 3e38  # of float32, in which models compute


class Access(IntEnum):
    """What a model gives, from least to most; each level includes those below."""

    LABELS = 1
    """Predicted classes only."""
    SCORES = 2
    """Logits or probabilities."""
    GRADIENTS = 3
    """Derivatives of the logits with respect to the inputs."""
    INTERNALS = 4
    """Activations and parameters."""


def require_access(model: object, needed: Access, *, method: str, instead: Sequence[str] = ()) -> None:
    """Raise one `AccessError` before work starts when `model.access` is below `needed`.

    Args:
        model: anything with an `access` attribute.
        needed: the level the method asks for.
        method: the method's registered name, for the message.
        instead: names of methods that would work on this model.
    """
    if not hasattr(model, "access"):
        raise AccessError(
            "E110",
            seen=f"{method} on a {type(model).__name__} that does not say what it gives",
            expected=f"a model that gives {needed.name}",
            fix="wrap the network first, such as vambrace.models.from_torch(network, bounds=(0, 1))",
        )
    given = Access(cast("Any", model).access)
    if given < needed:
        fix = f"use one of: {', '.join(instead)}" if instead else f"load the model in a form that gives {needed.name}"
        raise AccessError(
            "E110",
            seen=f"{method} on {type(model).__name__}, which gives {given.name}",
            expected=f"a model that gives {needed.name}",
            fix=fix,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """The box that inputs must lie in, in the units the caller feeds (before any normalisation).

    Attributes:
        low: smallest value; a number, or a tensor that broadcasts against one sample.
        high: largest value; of the same kind as `low`.
    """

    low: float | Tensor
    high: float | Tensor

    def __post_init__(self) -> None:
        scalars = isinstance(self.low, int | float), isinstance(self.high, int | float)
        if any(scalars) and not all(scalars):
            raise ConfigError(
                "E101",
                seen=f"bounds with a {type(self.low).__name__} and a {type(self.high).__name__}",
                expected="two numbers, or two tensors",
                fix="give both ends in the same form",
            )
        # Comparisons with the largest finite number refuse infinities and NaN, for numbers and tensors alike.
        ordered = (self.low < self.high) & (self.low >= -_LARGEST) & (self.high <= _LARGEST)
        if not (ordered if isinstance(ordered, bool) else bool(ordered.all())):
            raise ConfigError(
                "E101",
                seen=_shown(self.low, self.high),
                expected="low < high everywhere, both finite",
                fix=_fix(self.low, self.high),
            )

    @property
    def span(self) -> float:
        """The widest distance between the two ends, in input units."""
        if isinstance(self.low, int | float) and isinstance(self.high, int | float):
            return float(self.high) - float(self.low)
        return float((self.high - self.low).max())  # type: ignore[union-attr]

    def clip(self, inputs: Tensor) -> Tensor:
        """Inputs (n, ...) moved to the nearest point inside the box."""
        return inputs.clamp(self.low, self.high)  # type: ignore[arg-type]

    def contains(self, inputs: Tensor, tolerance: float = 0.0) -> Tensor:
        """Per sample (n,), whether every value lies inside the box widened by `tolerance`."""
        inside = (inputs >= self.low - tolerance) & (inputs <= self.high + tolerance)
        return inside.flatten(1).all(dim=1)

    def to(self, like: Tensor) -> Bounds:
        """The same box with tensor ends on the device and dtype of `like`."""
        if isinstance(self.low, int | float) or isinstance(self.high, int | float):
            return self
        return Bounds(self.low.to(like), self.high.to(like))

    def as_json(self) -> object:
        """`[low, high]` as numbers or nested lists, for unit keys and reports."""
        if isinstance(self.low, int | float) or isinstance(self.high, int | float):
            return [float(self.low), float(self.high)]
        return cast("list[object]", [self.low.tolist(), self.high.tolist()])


def _shown(low: float | Tensor, high: float | Tensor) -> str:
    """Bounds that are no range, in few words."""
    if isinstance(low, int | float) or isinstance(high, int | float):
        return f"bounds ({low}, {high})"
    wrong = ~(low < high)
    count = int(wrong.sum()) or int((~((low >= -_LARGEST) & (high <= _LARGEST))).sum())
    return f"bounds of which {count} of {wrong.numel()} are no range"


def _fix(low: float | Tensor, high: float | Tensor) -> str:
    """What is to be done about bounds that are no range."""
    finite = (low >= -_LARGEST) & (low <= _LARGEST) & (high >= -_LARGEST) & (high <= _LARGEST)
    if not (finite if isinstance(finite, bool) else bool(finite.all())):
        return "give the least and the largest value that an input may have, or None for a model without bounds"
    above = low > high
    if above if isinstance(above, bool) else bool(above.any()):
        return "write the smallest value first, such as (0, 1)"
    return "give the range that inputs may have, such as (0, 1), and not that of data in which a value never changes"

"""Families of architectures, each with as many variants as one asks for: what a classifier has to tell apart.

A variant differs from its family in depth, widths, kernel sizes, input size, number of classes and style. The same
family, variant, seed and size always give the same bytes. A tiny one takes some 5 to 200 microseconds a sample on one
core, so that tests are quick; one of usual size is as wide as networks in use: convolutions start with 24 to 80
channels, dense layers have 300 to 1,000 units and recurrent ones 200 to 400.

    >>> len(FAMILIES) >= 10
    True
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from vambrace.assets.obfuscate.measure import maps, tokens
from vambrace.assets.obfuscate.measure.sketch import Choices, Sketch, Style
from vambrace.core.rng import Streams

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from onnx import ModelProto

    from vambrace.assets.obfuscate.measure.sketch import Value

__all__ = ["FAMILIES", "Size", "variant"]

Size = Literal["tiny", "usual"]

FAMILIES: Mapping[str, Callable[[Sketch, Choices], Value]] = {**maps.FAMILIES, **tokens.FAMILIES}
"""Name -> a function that draws the network into a sketch and gives its output."""


_WIDER, _LARGER = 8, 2
"""Layers of usual size over tiny ones, and pictures where they are larger."""
_WIDEST = {"mlp": 24, "recurrent": 24}
"""What has no maps and no tokens to multiply its work."""
_HALVING = frozenset({"mobilenet", "squeezenet", "autoencoder", "pyramid", "transformer", "mixer"})
"""What makes a picture smaller at once, and is used on larger ones."""


def variant(family: str, number: int, *, seed: int = 0, size: Size = "tiny") -> ModelProto:
    """Variant `number` of a family, an onnx.ModelProto with drawn weights, as large as `size` says."""
    rng = Streams(seed).child("families", family, number)
    usual = size == "usual"
    choices = Choices(rng.child("choices"), _WIDEST.get(family, _WIDER) if usual else 1)
    style = Style.drawn(choices)
    larger = _LARGER if usual and family in _HALVING else 1
    sketch = Sketch(_shape(family, choices, larger), style, rng.child("weights"))
    return sketch.finished(FAMILIES[family](sketch, choices), f"{family}_{number}")


def _shape(family: str, choices: Choices, larger: int) -> tuple[int, ...]:
    if family not in tokens.FAMILIES:
        size = larger * int(choices.of(16, 32))
        return (int(choices.of(1, 3)), size, size)
    shape = tokens.shape(family, choices)
    return (shape[0], *(larger * side for side in shape[1:])) if len(shape) == 3 else shape

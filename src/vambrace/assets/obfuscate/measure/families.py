"""Families of architectures, each with as many variants as one asks for: what a classifier has to tell apart.

A variant differs from its family in depth, widths, kernel sizes, input size, number of classes and style. The same
family, variant and seed always give the same bytes.

    >>> len(FAMILIES) >= 10
    True
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vambrace.assets.obfuscate.measure import maps, tokens
from vambrace.assets.obfuscate.measure.sketch import Choices, Sketch, Style
from vambrace.core.rng import Streams

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from onnx import ModelProto

    from vambrace.assets.obfuscate.measure.sketch import Value

__all__ = ["FAMILIES", "variant"]

FAMILIES: Mapping[str, Callable[[Sketch, Choices], Value]] = {**maps.FAMILIES, **tokens.FAMILIES}
"""Name -> a function that draws the network into a sketch and gives its output."""


def variant(family: str, number: int, *, seed: int = 0) -> ModelProto:
    """Variant `number` of a family, an onnx.ModelProto of tiny weights."""
    rng = Streams(seed).child("families", family, number)
    choices = Choices(rng.child("choices"))
    style = Style.drawn(choices)
    sketch = Sketch(_shape(family, choices), style, rng.child("weights"))
    return sketch.finished(FAMILIES[family](sketch, choices), f"{family}_{number}")


def _shape(family: str, choices: Choices) -> tuple[int, ...]:
    if family in tokens.FAMILIES:
        return tokens.shape(family, choices)
    size = int(choices.of(16, 32))
    return (int(choices.of(1, 3)), size, size)

"""Layers with constant weights as passes of the tolerance profile take them apart: Conv, Gemm and MatMul."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.assets.obfuscate.shapes import sizes_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.edits import Edit
    from vambrace.assets.obfuscate.graph import Node
    from vambrace.assets.obfuscate.net import Net
    from vambrace.assets.obfuscate.shapes import Sizes

__all__ = ["FLOATS", "Layer", "layer_of", "layers_of", "of_both_signs"]

FLOATS = frozenset({np.dtype("f4"), np.dtype("f8")})
"""Types whose rounding is small enough for the tolerance profile."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """One layer.

    Attributes:
        node: Conv of one group, Gemm of plain factors, or MatMul whose second factor is a matrix.
        weight: as it is stored.
        bias: (gives,) or None.
        output_axis, input_axis: of the weight.
        channels: the axis of the result that the output channels are, counted from the front.
        taken_shape, given_shape: of its input and of its result; sizes that the file leaves free are only examples.
    """

    node: Node
    weight: NDArray[Any]
    bias: NDArray[Any] | None
    output_axis: int
    input_axis: int
    channels: int
    taken_shape: tuple[int, ...]
    given_shape: tuple[int, ...]

    @property
    def gives(self) -> int:
        """Output channels."""
        return self.weight.shape[self.output_axis]

    @property
    def takes(self) -> int:
        """Input channels."""
        return self.weight.shape[self.input_axis]

    @property
    def sources(self) -> int:
        """The axis of its input that the input channels are, counted from the front."""
        return 1 if self.node.is_a("Conv") else len(self.taken_shape) - 1

    @property
    def products(self) -> int:
        """How many products it adds up for one sample."""
        return math.prod(self.given_shape) * self.weight.size // max(1, self.gives)

    def write(
        self,
        edit: Edit,
        value: str,
        weight: NDArray[Any],
        bias: NDArray[Any] | None,
        *,
        to: str | None = None,
        **attributes: object,
    ) -> str:
        """A layer of the same attributes with other weights."""
        names = [edit.constant(weight)]
        if bias is not None:
            names.append(edit.constant(bias))
        elif self.node.is_a("Gemm") and edit.opset < 11:  # where a bias had to be there
            names.append(edit.constant(np.zeros_like(weight, shape=(weight.shape[self.output_axis],))))
        return edit.like(self.node, value, *names, to=to, **attributes)

    def outputs(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Weight and bias of some output channels."""
        part = [slice(None)] * self.weight.ndim
        part[self.output_axis] = slice(start, stop)
        return self.weight[tuple(part)], None if self.bias is None else self.bias[start:stop]

    def inputs(self, start: int, stop: int) -> NDArray[Any]:
        """The weight for some input channels."""
        part = [slice(None)] * self.weight.ndim
        part[self.input_axis] = slice(start, stop)
        return self.weight[tuple(part)]


def of_both_signs(layers: Sequence[Layer], left: dict[str, int]) -> list[Layer]:
    """Those whose weights can be mixed; the others are counted in `left`.

    A filterbank has no weight below zero, and roots and logarithms behind it take what it gives. A product of matrices
    of both signs is not below zero but for rounding, and under a wrong key of a lock it is.
    """
    found = [layer for layer in layers if layer.weight.min() < 0]
    if len(found) < len(layers):
        left["layers of no weight below zero"] = len(layers) - len(found)
    return found


def layers_of(net: Net) -> tuple[list[Layer], Sizes, dict[str, int]]:
    """The layers of the main graph in order, the sizes of its values, and why other such nodes are none."""
    sizes = sizes_of(net)
    found: list[Layer] = []
    left: dict[str, int] = {}
    for node in net.graph.nodes:
        if node.is_a("Conv", "Gemm", "MatMul"):
            layer = layer_of(net, node, sizes)
            if isinstance(layer, Layer):
                found.append(layer)
            else:
                left[layer] = left.get(layer, 0) + 1
    return found, sizes, left


def layer_of(net: Net, node: Node, sizes: Sizes) -> Layer | str:
    """The layer that a node is, or why it is none."""
    weights = net.graph.initialisers
    taken, given = sizes.shapes.get(node.inputs[0]), sizes.shapes.get(node.outputs[0])
    if taken is None or given is None:
        return "shapes that are not known"
    constants = [weights.get(name) for name in node.inputs[1:] if name]
    weight, bias = (*constants, None)[:2]
    if weight is None or (len(constants) == 2 and bias is None) or node.inputs[0] in weights:
        return "weights that are no constants"
    if not all((*weight.shape, *taken, *given)):
        return "sizes of zero"
    if weight.dtype not in FLOATS:
        return "weights that are not float32 or float64"
    output_axis, input_axis = (0, 1) if node.is_a("Conv") or node.value("transB", 0) else (1, 0)
    if node.is_a("Conv") and int(node.value("group", 1)) != 1:
        return "convolutions in groups"
    if node.is_a("MatMul") and weight.ndim != 2:
        return "factors that are not matrices"
    if node.is_a("Gemm"):
        factors = (float(node.value("alpha", 1.0)), float(node.value("beta", 1.0)))
        if factors != (1.0, 1.0) or node.value("transA", 0):
            return "Gemm with factors or a transposed input"
        if bias is not None and bias.shape not in {(given[1],), (1, given[1])}:
            return "Gemm with another bias than one a channel"
    return Layer(
        node=node,
        weight=weight,
        bias=None if bias is None else bias.reshape(-1),
        output_axis=output_axis,
        input_axis=input_axis,
        channels=1 if node.is_a("Conv") else len(given) - 1,
        taken_shape=taken,
        given_shape=given,
    )

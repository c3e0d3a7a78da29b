"""A layer, what works on each of its channels alone, and the layer that reads them, in two branches."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from vambrace.assets.obfuscate.edits import Edit, Recipe
from vambrace.assets.obfuscate.layered import Layer

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.graph import Node
    from vambrace.assets.obfuscate.net import Net

__all__ = ["Branches", "find_branches"]

_ALONE = frozenset(
    {
        *("Abs", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Neg", "Relu", "Selu"),
        *("Sigmoid", "Softplus", "Softsign", "Tanh"),
    }
)
_SECOND = frozenset({"AveragePool", "BatchNormalization", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"})
"""Those whose channels are the second axis, whatever they read."""
_LONGEST = 6


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Branches:
    """Two layers and what is between them.

    Attributes:
        first: the layer whose channels are shared out.
        between: nodes, each the only reader of the one before.
        second: the layer that adds up over them.
    """

    first: Layer
    between: tuple[Node, ...]
    second: Layer

    def split(self, net: Net, at: int) -> dict[str, Any]:
        """Channels before `at` in one branch, the others in a second one; returns the record of the edit."""
        edit = Edit(net, self.first.node, *self.between, self.second.node)
        weights = net.graph.initialisers
        # Behind Flatten each channel is as many inputs of the second layer.
        spread = self.second.takes // self.first.gives
        halves = ((0, at), (at, self.first.gives))
        parts: dict[str, list[str]] = {}
        values: list[str] = []
        for start, stop in halves:
            value = self.first.write(edit, self.first.node.inputs[0], *self.first.outputs(start, stop))
            _note(parts, self.first.node, edit.nodes[-1])
            for node in self.between:
                names = [edit.constant(_part(weights[name], start, stop)) for name in node.inputs if name in weights]
                value = _read(edit, node, value, names, weights)
                _note(parts, node, edit.nodes[-1], weights)
            bias = self.second.bias if start == 0 else None
            value = self.second.write(edit, value, self.second.inputs(start * spread, stop * spread), bias)
            parts.setdefault(self.second.node.inputs[1], []).append(edit.nodes[-1].inputs[1])
            if bias is not None:
                parts[self.second.node.inputs[2]] = [edit.nodes[-1].inputs[2]]
            values.append(value)
        edit.add("Add", *values, to=self.second.node.outputs[0])
        axes = {self.first.node.inputs[1]: self.first.output_axis, self.second.node.inputs[1]: self.second.input_axis}
        for name, made in parts.items():
            edit.recipes[name] = Recipe(parts=made, axis=axes.get(name, 0), shape=weights[name].shape)
        return edit.done()


def _read(edit: Edit, node: Node, value: str, names: list[str], weights: dict[str, NDArray[Any]]) -> str:
    """A node of a branch: the value where the old one was, and its own part of each constant."""
    ahead = iter(names)
    return edit.like(node, *(next(ahead) if name in weights else value if name else "" for name in node.inputs))


def _note(parts: dict[str, list[str]], old: Node, new: Node, weights: dict[str, NDArray[Any]] | None = None) -> None:
    for position, (name, made) in enumerate(zip(old.inputs, new.inputs, strict=False)):
        if name in weights if weights is not None else position > 0:
            parts.setdefault(name, []).append(made)


def _part(array: NDArray[Any], start: int, stop: int) -> NDArray[Any]:
    return array if array.size == 1 else array[start:stop]


def find_branches(net: Net, first: Layer, layer_of: Callable[[Node], Layer | str]) -> Branches | None:
    """The branches that begin with a layer, if what follows it leads to another one by a single way."""
    index = net.index()
    weights = net.graph.initialisers
    between: list[Node] = []
    value = first.node.outputs[0]
    flat = False
    while len(between) <= _LONGEST:
        reader = index.only_consumer(value)
        if reader is None or len([name for name in reader[0].outputs if name]) != 1:
            return None
        node = reader[0]
        constants = [weights.get(name) for name in node.inputs if name and name != value]
        if node.is_a("Conv", "Gemm", "MatMul"):
            second = layer_of(node)
            if not isinstance(second, Layer) or reader[1] != 0 or second.sources != first.channels:
                return None
            if second.takes % first.gives or (second.takes != first.gives and not flat):
                return None
            return Branches(first, tuple(between), second)
        if node.is_a(*_SECOND) and first.channels != 1:
            return None
        if node.is_a("Flatten") and node.value("axis", 1) == 1 and first.channels == 1:
            flat = True
        elif node.is_a("BatchNormalization") and reader[1] == 0:
            if any(array is None or array.shape != (first.gives,) for array in constants):
                return None
        elif node.is_a("Add", "Mul", "Sub") and len(constants) == 1 and first.channels == len(first.given_shape) - 1:
            # One constant a channel stands along the last axis, where the channels of matrix products are.
            if flat or any(array is None or array.shape != (first.gives,) for array in constants):
                return None
        elif not (node.is_a(*_ALONE, *_SECOND) and not constants):
            return None
        between.append(node)
        value = node.outputs[0]
    return None

"""Places where nodes can be put in between, or around a layer, without changing how a runtime adds numbers up.

A runtime fuses a convolution with what follows it (batch normalisation, products and sums with constants, an
activation, a sum with another branch), and chooses the layout of values for runs of layers. Some of that changes the
order of sums, so a place is a whole chain, from a layer to its activation, whose value goes to readers that are not
fused with it and compute the same in either layout. What was found of onnxruntime 1.32 on processors with AVX-512:

- layers (Conv, Gemm, MatMul): which row of its weights a channel is, does not matter for the channel's own bits, but
  for matrices that callers may override: those are not laid out in advance, and one row times such a matrix, if it lies
  there transposed, is added up in another order for the channels at the end. So are the channels of a convolution that
  gives one place alone, as behind a global pool, unless they are few and a multiple of four, and those in double
  precision where several threads share the work. With `session.disable_prepacking` no matrix is laid out in advance;
- sums of two branches, average pools, batch normalisations and resizing by interpolation: not behind a changed place,
  since they are fused, or computed in another order, when what comes in has another layout;
- Elu, Mish, Selu and Softplus, and in double precision all that is not linear in pieces: the elements at the end of a
  tensor get other last bits than those in its middle, so a chain ends before them;
- maximum pools, concatenations, activations, copies: exact in any layout; the rule goes on to their readers;
- Reshape, Transpose and the like behind matrix products: not at all, since fusions of attention look for them.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.assets.obfuscate.edits import OLDEST_IR
from vambrace.assets.obfuscate.layers import Part, Weights, along, layer_weights, numbered

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.graph import Node
    from vambrace.assets.obfuscate.net import Index, Info, Net

__all__ = ["Place", "find_places"]

_LAYERS = ("Conv", "Gemm", "MatMul")
_UNARY = frozenset(
    {
        *("Abs", "Clip", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Mish", "Neg"),
        *("Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Tanh", "ThresholdedRelu"),
    }
)
# Computed by other code at the end of a tensor than in its middle, with other last bits: channels must stay in place.
_UNEVEN = frozenset({"Elu", "Mish", "Selu", "Softplus"})
_EVEN_IN_DOUBLE = frozenset({"Abs", "Clip", "Identity", "Neg", "Relu"})
_BINARY = frozenset({"Add", "Div", "Mul", "PRelu", "Pow", "Sub"})
_LONGEST = 12
# Channels of a convolution that are added up together where it gives one place, and products that one thread takes.
_AT_ONCE, _SHARED_OUT = 4, 2**16
_SHAPES = frozenset({"Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_COPIES = frozenset({"Concat", "Dropout", "Gather", "GlobalMaxPool", "MaxPool"}) | _UNARY


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Place:
    """A layer and what is fused with it.

    Attributes:
        nodes: in order; the first one is the layer.
        weights: of the layer.
        parts: all weights along output channels, by their names: those of the layer and of the nodes behind it.
        taken: the value that it reads.
        given: the value that it makes.
        uneven: why a channel's bits depend on where it stands; empty where they do not.
    """

    nodes: tuple[Node, ...]
    weights: Weights
    parts: tuple[Part, ...]
    taken: str
    given: str
    uneven: str


def find_places(net: Net) -> tuple[list[Place], dict[str, int]]:
    """The places of the main graph in order, and why other layers are none."""
    search = _Search(net)
    places: list[Place] = []
    left: dict[str, int] = {}
    for node in net.graph.nodes:
        weights = layer_weights(node, search.constants, search.infos) if node.is_a(*_LAYERS) else None
        if weights is None:
            if node.is_a(*_LAYERS):
                left["weights that are no plain constants"] = left.get("weights that are no plain constants", 0) + 1
            continue
        found = search.place(node, weights)
        if isinstance(found, Place):
            places.append(found)
        else:
            left[found] = left.get(found, 0) + 1
    return places, left


class _Search:
    def __init__(self, net: Net) -> None:
        self.constants: Mapping[str, NDArray[Any]] = net.graph.constants()
        self.infos: Mapping[str, Info] = net.infer()
        self._index: Index = net.index()
        # Before that version, initialisers are listed as inputs and constant all the same.
        self._given = {each.name for each in net.graph.inputs if net.extra.ir_version >= OLDEST_IR}
        self._uses: dict[str, int] = {}
        for graph in net.graphs():
            for name in (*graph.output_names, *(name for node in graph.nodes for name in node.inputs)):
                self._uses[name] = self._uses.get(name, 0) + 1

    def place(self, layer: Node, weights: Weights) -> Place | str:
        """The place that begins with a layer, or why there is none."""
        nodes = [layer]
        parts = [part for part in weights.parts if part.gives is not None]
        value = layer.outputs[0]
        while (more := self._closed(value, weights)) is not None:
            nodes += more[0]
            parts += more[1]
            value = more[2]
        if any(self._uses[part.name] > 1 for part in parts):
            return "weights that several nodes share"
        # Fusions of attention and of normalisation look for these shapes behind matrix products.
        shapes_matter = not layer.is_a("Conv")
        loud = self._loud(value, shapes_matter=shapes_matter, seen=set())
        if loud:
            return f"read by {loud}"
        return Place(
            nodes=tuple(nodes),
            weights=weights,
            parts=tuple(parts),
            taken=layer.inputs[weights.source],
            given=value,
            uneven=self._uneven(layer, weights),
        )

    def _uneven(self, layer: Node, weights: Weights) -> str:
        name = weights.parts[0].name
        array = self.constants[name]
        if array.dtype == np.float64:
            return "layers of double precision"
        if not layer.is_a("Conv"):
            return "matrices that callers may override" if name in self._given else ""
        info = self.infos.get(layer.outputs[0])
        sizes = info.shape[2:] if info is not None and info.shape is not None else ()
        several = any(isinstance(size, int) and size > 1 for size in sizes)
        groups = int(layer.value("group", 1))
        # Then no channel is left over, and the work is not shared out between threads.
        full = weights.gives // groups % _AT_ONCE == 0 and array.size // groups < _SHARED_OUT
        return "" if several or full else "convolutions that may give one place alone"

    def _closed(self, value: str, weights: Weights) -> tuple[list[Node], list[Part], str] | None:
        """The next nodes of a chain: as few as it takes until one value leaves them again, as x * Sigmoid(x) does."""
        made, waiting = {value}, [value]
        nodes: list[Node] = []
        parts: list[Part] = []
        while waiting and len(nodes) < _LONGEST:
            for node, position in self._index.consumers.get(waiting.pop(0), []):
                if position < 0 or node in nodes:
                    continue
                more = self._follows(node, made, weights)
                if more is None:
                    continue
                nodes.append(node)
                parts += more
                made.add(node.outputs[0])
                waiting.append(node.outputs[0])
                leaving = [name for name in made if self._leaves(name, nodes)]
                if leaving == [node.outputs[0]]:
                    return nodes, parts, node.outputs[0]
        return None

    def _leaves(self, name: str, nodes: list[Node]) -> bool:
        readers = self._index.consumers.get(name, [])
        return name in self._index.outputs or any(node not in nodes for node, _ in readers) or not readers

    def _follows(self, node: Node, made: set[str], weights: Weights) -> list[Part] | None:
        """The parts of a node that works element by element on what a chain has made, or None for any other node."""
        if node.domain not in {"", "ai.onnx"} or len([name for name in node.outputs if name]) != 1:
            return None
        fixed = [name for name in node.inputs if name and name not in made]
        if any(name not in self.constants for name in fixed):
            return None
        if node.op == "BatchNormalization":
            own = layer_weights(node, self.constants, self.infos)
            if own is None or own.axis != weights.axis or own.gives != weights.gives:
                return None
            return [Part(name=name, gives=numbered(own.gives), adds=place > 0) for place, name in enumerate(fixed)]
        if node.op in _UNARY:
            double = self.constants[weights.parts[0].name].dtype == np.float64
            return None if node.op in _UNEVEN or (double and node.op not in _EVEN_IN_DOUBLE) else []
        if node.op not in _BINARY:
            return None
        parts: list[Part] = []
        for name in fixed:
            array = self.constants[name]
            if array.size > 1 and not along(array, weights.axis, weights.gives):
                return None
            if array.size > 1:
                channels = numbered(array.size).reshape(array.shape)
                parts.append(Part(name=name, gives=channels, adds=node.op in {"Add", "Sub"}))
        return parts

    def _loud(self, value: str, *, shapes_matter: bool, seen: set[str]) -> str:
        """The first reader, however far behind, that would compute in another way; empty where there is none."""
        if value in seen:
            return ""
        seen.add(value)
        for node, position in self._index.consumers.get(value, []):
            if node.is_a("Shape", "Size") or (node.is_a(*_LAYERS, "ConvTranspose") and position == 0):
                continue
            if node.is_a(*_SHAPES) and not shapes_matter and position == 0:
                continue
            if not node.is_a(*_COPIES) or position < 0:
                return node.op
            for output in node.outputs:
                if loud := self._loud(output, shapes_matter=shapes_matter, seen=seen):
                    return loud
        return ""

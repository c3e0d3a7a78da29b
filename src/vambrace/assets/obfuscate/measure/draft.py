"""A model that is being taken apart: nodes, constants, and who feeds whom, always up to date.

Bodies of branches see values of the main graph by name, so what they mention counts as used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.assets.obfuscate.measure.runtime import clone, constant_array, onnx
from vambrace.assets.obfuscate.measure.structure import inlined, order, read_graph

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray
    from onnx import ModelProto

__all__ = ["Draft", "mentioned", "renamed"]


class Draft:
    """A model under change. Functions are inlined, constant nodes become weights.

    Args:
        model: an onnx.ModelProto; it is left as it is.

    Attributes:
        nodes: of the main graph, onnx.NodeProto, each after what feeds it.
        weights: constants of the main graph by name.
        outputs: names, in order.
    """

    def __init__(self, model: ModelProto) -> None:
        self._model = clone(inlined(model))
        graph = self._model.graph
        self.weights: dict[str, NDArray[Any]] = {
            tensor.name: onnx().numpy_helper.to_array(tensor) for tensor in graph.initializer
        }
        self.nodes: list[Any] = []
        for node in graph.node:
            array = constant_array(node) if node.op_type == "Constant" else None
            if array is not None:
                self.weights[node.output[0]] = array
            else:
                self.nodes.append(node)
        self.outputs = [each.name for each in graph.output]
        self.inputs = [each.name for each in graph.input if each.name not in self.weights]
        self._fresh = 0

    def name(self) -> str:
        """A name that nothing has."""
        self._fresh += 1
        return f"draft_{self._fresh}_{id(self):x}"

    def producers(self) -> dict[str, Any]:
        """Name of a value -> the node that gives it."""
        return {name: node for node in self.nodes for name in node.output if name}

    def users(self) -> dict[str, list[Any]]:
        """Name of a value -> nodes that take it, in their bodies or themselves; None stands for the model's output."""
        found: dict[str, list[Any]] = {name: [None] for name in self.outputs}
        for node in self.nodes:
            for name in mentioned(node):
                found.setdefault(name, []).append(node)
        return found

    def keep(self, array: NDArray[Any]) -> str:
        """A new constant."""
        name = self.name()
        self.weights[name] = np.array(array, order="C")
        return name

    def fix(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Inputs that are known become constants."""
        self.weights |= values
        self.inputs = [name for name in self.inputs if name not in values]

    def replace(self, old: str, new: str) -> None:
        """Let everything that takes `old` take `new`; outputs of the model keep their names."""
        for node in self.nodes:
            renamed(node, old, new)

    def splice(self, node: Any, *others: Any) -> None:  # noqa: ANN401  onnx.NodeProto
        """Put other nodes in the place of one."""
        place = next(number for number, each in enumerate(self.nodes) if each is node)
        self.nodes[place : place + 1] = others

    def sweep(self) -> int:
        """Drop nodes and constants that lead nowhere; how many nodes."""
        needed, kept = set(self.outputs), list[Any]()
        for node in reversed(self.nodes):
            if needed & set(node.output):
                kept.append(node)
                needed |= set(mentioned(node))
        gone = len(self.nodes) - len(kept)
        self.nodes = kept[::-1]
        self.weights = {name: array for name, array in self.weights.items() if name in needed}
        return gone

    def model(self, *, canonical: bool = False) -> ModelProto:
        """As an onnx.ModelProto, with nodes in an order and under names that the graph alone decides, if asked for."""
        model = clone(self._model)
        graph = model.graph
        for field in ("node", "initializer", "value_info", "sparse_initializer", "quantization_annotation"):
            graph.ClearField(field)
        inputs = [each for each in self._model.graph.input if each.name in self.inputs]
        graph.ClearField("input")
        graph.input.extend(inputs)
        graph.node.extend(self.nodes)
        from_array = onnx().numpy_helper.from_array
        graph.initializer.extend([from_array(array, name) for name, array in self.weights.items()])
        return _canonical(model) if canonical else model


def mentioned(node: Any) -> Iterator[str]:  # noqa: ANN401  an onnx.NodeProto
    """Every name that a node or a body inside it takes from around it, and those that bodies define."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for body in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            yield from (each.name for each in body.output)
            for inner in body.node:
                yield from mentioned(inner)


def renamed(node: Any, old: str, new: str) -> None:  # noqa: ANN401  an onnx.NodeProto
    """Let a node, and the bodies inside it, take `new` for `old`, where they do not define `old` themselves."""
    for slot, name in enumerate(node.input):
        if name == old:
            node.input[slot] = new
    for attribute in node.attribute:
        for body in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            own = {tensor.name for tensor in body.initializer} | {name for each in body.node for name in each.output}
            if old in own:
                continue
            for inner in body.node:
                renamed(inner, old, new)
            for each in body.output:
                # A body may give a value from around it as it is.
                each.name = new if each.name == old else each.name


def _canonical(model: ModelProto) -> ModelProto:
    """Nodes sorted by `structure.order` as far as bodies allow, and numbered names for nodes; nothing documented."""
    model.producer_name = model.producer_version = model.domain = model.doc_string = ""
    model.ClearField("metadata_props")
    graph = model.graph
    graph.name, graph.doc_string = "graph", ""
    for number, node in enumerate(graph.node):
        node.name = f"main {number}"
    read = read_graph(model)
    rank = {read.names[place]: number for number, place in enumerate(order(read))}
    nodes = sorted(graph.node, key=lambda node: rank[node.name])
    known = {each.name for each in graph.input} | {each.name for each in graph.initializer} | {""}
    made = {name for node in graph.node for name in node.output}
    placed: list[Any] = []
    while nodes:
        ready = [node for node in nodes if all(name in known or name not in made for name in mentioned(node))]
        node = ready[0] if ready else nodes[0]
        nodes.remove(node)
        placed.append(node)
        known |= set(node.output)
    kept = [onnx().NodeProto.FromString(node.SerializeToString()) for node in placed]
    graph.ClearField("node")
    for number, node in enumerate(kept):
        node.name, node.doc_string = str(number), ""
        node.ClearField("metadata_props")
    graph.node.extend(kept)
    return model

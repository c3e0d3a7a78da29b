"""Nodes of the main graph in a branch of an If, with their weights, and out of it again.

A branch takes its weights along, so that runtimes fuse in it what they fused before. Weights that others read as well
are copied, and Constant nodes become weights. So do weights that only graphs inside its nodes read: onnxruntime lays
weights out in advance for a graph and the one around it, not for those further in, and sums run in another order then.

Layers of half precision stay outside: processors compute them in single precision, and inside of a branch onnxruntime
1.32 brings their weights to it at every run, so it neither lays them out in advance nor chooses the same kernels.
"""

from __future__ import annotations

import base64
import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any

from vambrace.assets.obfuscate.graph import Graph, node_from, node_proto, reads_of
from vambrace.models.onnx_file import onnx_package

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.graph import Node
    from vambrace.assets.obfuscate.net import Net

__all__ = ["Enclosed", "HALVES", "branch_of", "crossing", "enclose", "halved", "release", "renamed"]

HALVES = "weights of half precision, with which runtimes compute otherwise in a branch"
"""Why places are left."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Enclosed:
    """Nodes that went into a branch.

    Attributes:
        branch: with its weights; it has no inputs, as branches of an If have none.
        shared: outer names of weights that others read as well, by those of their copies.
        constants: Constant nodes that were taken along, in base64, by what they make.
    """

    branch: Graph
    shared: dict[str, str]
    constants: dict[str, str]

    def record(self) -> dict[str, Any]:
        """What `release` needs beside the node and the name of the branch, as JSON data."""
        return {"shared": self.shared, "constants": self.constants}


def halved(array: NDArray[Any]) -> bool:
    """Whether it is a weight of a layer, of half precision."""
    return array.ndim > 1 and array.dtype.name in {"float16", "bfloat16"}


def crossing(net: Net, nodes: Sequence[Node]) -> list[str]:
    """Values of the main graph that nodes read and do not make, constants aside, in the order of reading."""
    graph = net.graph
    made = {name for node in nodes for name in node.outputs}
    known = {name for node in graph.nodes for name in node.outputs} | set(graph.input_names)
    read = dict.fromkeys(name for node in nodes for name in (*node.inputs, *sorted(reads_of(node))))
    constants = graph.constants()
    return [name for name in read if name in known and name not in made and name not in constants]


def enclose(net: Net, nodes: Sequence[Node], values: Mapping[str, int]) -> Enclosed:
    """Take nodes out of the main graph, into a branch.

    Args:
        net: with the nodes.
        nodes: in order.
        values: kinds of the values that leave the branch, by their names; the branch calls them by others.
    """
    graph = net.graph
    constants = graph.constants()
    given = {each.name for each in graph.inputs}
    inside = Counter(_reads(nodes))
    weights: dict[str, NDArray[Any]] = {}
    shared: dict[str, str] = {}
    stood: dict[str, str] = {}
    everywhere = Counter([*graph.output_names, *_reads(graph.nodes)])
    producers = net.index().producers
    for name in inside:
        if name not in constants or name in given:
            continue
        if everywhere[name] > inside[name]:
            (copy,) = net.fresh()
            shared[copy], weights[copy] = name, constants[name]
            continue
        weights[name] = constants[name]
        if name in graph.initialisers:
            del graph.initialisers[name]
        else:
            stood[name] = base64.b64encode(node_proto(producers[name], onnx_package()).SerializeToString()).decode()
            graph.remove(producers[name])
    renamed(nodes, {name: copy for copy, name in shared.items()})
    graph.remove(*nodes)
    made = {name for node in nodes for name in node.outputs}
    branch = branch_of(net, list(nodes), values, weights)
    branch.infos = [each for each in graph.infos if each.name in made - set(values)]
    graph.infos = [each for each in graph.infos if each.name not in made - set(values)]
    return Enclosed(branch=branch, shared=shared, constants=stood)


def branch_of(net: Net, nodes: list[Node], values: Mapping[str, int], weights: dict[str, NDArray[Any]]) -> Graph:
    """A graph without inputs; values that leave it get names of their own."""
    onnx = onnx_package()
    *outputs, name = net.fresh(len(values) + 1)
    renamed(nodes, dict(zip(values, outputs, strict=True)))
    infos = [
        onnx.helper.make_tensor_value_info(one, kind, None) for one, kind in zip(outputs, values.values(), strict=True)
    ]
    return Graph(
        nodes=nodes, initialisers=weights, inputs=[], outputs=infos, infos=[], extra=onnx.GraphProto(name=name)
    )


def release(net: Net, chooser: Node, branch: Graph, record: Mapping[str, Any]) -> None:
    """Put what was enclosed before the If, and take the If out.

    Raises:
        LookupError: where the record names what is not there.
    """
    graph, onnx = net.graph, onnx_package()
    renamed(branch.nodes, record["shared"])
    renamed(branch.nodes, dict(zip(branch.output_names, chooser.outputs, strict=True)))
    moved = {name: array for name, array in branch.initialisers.items() if name not in record["shared"]}
    stood = {name: onnx.NodeProto.FromString(base64.b64decode(text)) for name, text in record["constants"].items()}
    graph.initialisers |= {name: array for name, array in moved.items() if name not in stood}
    graph.infos += branch.infos
    graph.insert([*(node_from(each, onnx) for each in stood.values()), *branch.nodes], before=chooser)
    graph.remove(chooser)


def _reads(nodes: Iterable[Node]) -> Iterator[str]:
    """What nodes read, each time that they do, and graphs inside them with what these give."""
    for node in nodes:
        yield from node.inputs
        for body in node.graphs():
            yield from body.output_names
            yield from _reads(body.nodes)


def renamed(nodes: Iterable[Node], names: Mapping[str, str]) -> None:
    """Call values by other names wherever nodes, or graphs inside them, read and make them."""
    for node in nodes:
        node.inputs = [names.get(name, name) for name in node.inputs]
        node.outputs = [names.get(name, name) for name in node.outputs]
        for body in node.graphs():
            renamed(body.nodes, names)

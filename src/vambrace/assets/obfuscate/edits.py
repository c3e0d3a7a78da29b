"""Replacing nodes of a net by others that compute the same, with a record that puts the old ones back.

An `Edit` collects new nodes for some old ones. Operators whose attributes became inputs in later operator sets are
written as the net's own set has them.
"""

from __future__ import annotations

import base64
import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.assets.obfuscate.graph import Node, node_from, node_proto
from vambrace.models.onnx_file import onnx_package

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.net import Net

__all__ = ["Edit", "Recipe", "arranged", "drop_weights", "modernise", "rearrange", "revert"]

OLDEST_IR = 4
"""Before this IR version initialisers must stand among the inputs of the graph."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How an old weight is made of new ones, bit for bit.

    Attributes:
        parts: names of new weights.
        axis: along which they are joined, where there are several.
        shape: of the old weight; the joined one is brought into it.
        transposed: whether a matrix is to be transposed then.
    """

    parts: Sequence[str]
    axis: int
    shape: Sequence[int]
    transposed: bool = False


class Edit:
    """New nodes in place of old ones.

    Attributes:
        nodes: what was added so far, in order.
        opset: of the net's own operators.
        recipes: how old weights are made of new ones.
    """

    def __init__(self, net: Net, *old: Node) -> None:
        """Args: the net, and the nodes that go; what others read of them must be made by the new ones."""
        self._net = net
        self._old = old
        self._constants: list[str] = []
        self.opset = net.opset()
        self.nodes: list[Node] = []
        self.recipes: dict[str, Recipe] = {}

    def weight(self, name: str) -> NDArray[Any]:
        """The value of an old weight."""
        return self._net.graph.initialisers[name]

    def instead(self, old: str, array: NDArray[Any], *, transposed: bool = False) -> str:
        """A constant of the elements of an old weight, or of the transpose of an old matrix, in another shape."""
        name = self.constant(array)
        self.recipes[old] = Recipe(parts=[name], axis=0, shape=self.weight(old).shape, transposed=transposed)
        return name

    def constant(self, array: NDArray[Any] | Sequence[int]) -> str:
        """A new initialiser; whole numbers of a sequence are int64."""
        (name,) = self._net.fresh()
        given = array if isinstance(array, np.ndarray) else np.asarray(array, np.int64)
        self._net.graph.initialisers[name] = np.ascontiguousarray(given).reshape(given.shape)
        modernise(self._net)
        self._constants.append(name)
        return name

    def scalar(self, number: float, like: np.dtype[Any]) -> str:
        """A constant without axes, of a type."""
        return self.constant(np.asarray(number, like))

    def add(self, op: str, *inputs: str, to: str | None = None, **attributes: object) -> str:
        """A node with one output, called `to` or by a new name."""
        (output,) = self._net.fresh() if to is None else (to,)
        node = Node(op, list(inputs), [output])
        node.set(**attributes)
        self.nodes.append(node)
        return output

    def like(self, node: Node, *inputs: str, to: str | None = None, **attributes: object) -> str:
        """A node with one output and the attributes of another one, but for those that are given."""
        output = self.add(node.op, *inputs, to=to)
        self.nodes[-1].attributes = dict(node.attributes)
        self.nodes[-1].set(**attributes)
        return output

    def reshape(self, value: str, shape: Sequence[int], *, to: str | None = None) -> str:
        """0 keeps a size, -1 takes what is left."""
        return self.add("Reshape", value, self.constant(shape), to=to)

    def split(self, value: str, sizes: Sequence[int], axis: int) -> list[str]:
        """Consecutive parts along an axis."""
        outputs = self._net.fresh(len(sizes))
        stated = [] if self.opset < 13 else [self.constant(sizes)]
        node = Node("Split", [value, *stated], outputs)
        node.set(axis=axis, split=None if stated else list(sizes))
        self.nodes.append(node)
        return outputs

    def slice(self, value: str, start: int, end: int, axis: int) -> str:
        """Elements start to end - 1 along an axis; negative ends count from the back."""
        if self.opset < 10:
            return self.add("Slice", value, starts=[start], ends=[end], axes=[axis])
        return self.add("Slice", value, self.constant([start]), self.constant([end]), self.constant([axis]))

    def clip_below(self, value: str, low: float, dtype: np.dtype[Any], *, to: str | None = None) -> str:
        """Not below a number; without an upper end, runtimes may make the largest number of an infinity."""
        if self.opset < 11:
            return self.add("Clip", value, to=to, min=low, max=math.inf)
        return self.add("Clip", value, self.scalar(low, dtype), self.scalar(math.inf, dtype), to=to)

    def reduce(self, op: str, value: str, axes: Sequence[int], *, keep: bool, to: str | None = None) -> str:
        """ReduceSum, ReduceMean or ReduceMax along axes."""
        since = 13 if op == "ReduceSum" else 18
        if self.opset < since:
            return self.add(op, value, to=to, axes=list(axes), keepdims=int(keep))
        return self.add(op, value, self.constant(axes), to=to, keepdims=int(keep))

    def done(self) -> dict[str, Any]:
        """Put the new nodes where the last old one is; weights that nothing reads any more are taken out.

        Returns:
            A record for `revert`, as JSON data.
        """
        graph = self._net.graph
        onnx = onnx_package()
        last = max(
            range(len(graph.nodes)), key=lambda at: at if any(graph.nodes[at] is node for node in self._old) else -1
        )
        graph.insert(self.nodes, before=graph.nodes[last])
        graph.remove(*self._old)
        read = {name for each in self._net.graphs() for name in each.reads()}
        drop_weights(self._net, {name for node in self._old for name in node.inputs if name not in read})
        return {
            "old": [base64.b64encode(node_proto(node, onnx).SerializeToString()).decode() for node in self._old],
            "new": [node.outputs[0] for node in self.nodes],
            "constants": self._constants,
            "weights": {name: dataclasses.asdict(recipe) for name, recipe in self.recipes.items()},
        }


def drop_weights(net: Net, names: Collection[str]) -> None:
    """Take initialisers out, also from the inputs, where old IR versions list them."""
    graph = net.graph
    gone = {name for name in names if name in graph.initialisers}
    graph.initialisers = {name: array for name, array in graph.initialisers.items() if name not in gone}
    graph.inputs = [each for each in graph.inputs if each.name not in gone]


def modernise(net: Net) -> None:
    """Raise an old IR version, which lists initialisers as inputs, to one where they stand alone.

    Left there, they would become inputs that callers may override, which runtimes neither fold nor lay out in advance.
    """
    if net.extra.ir_version < OLDEST_IR:
        net.extra.ir_version = OLDEST_IR
        net.graph.inputs = [each for each in net.graph.inputs if each.name not in net.graph.initialisers]


def arranged(net: Net) -> dict[str, Any]:
    """The order of nodes and weights, inputs and the IR version, as JSON data for `rearrange`."""
    inputs = [base64.b64encode(each.SerializeToString()).decode() for each in net.graph.inputs]
    return {**net.graph.order(), "inputs": inputs, "ir": int(net.extra.ir_version)}


def rearrange(net: Net, before: Mapping[str, Any]) -> None:
    """Put back what `arranged` found, once the same nodes and weights are there again.

    Raises:
        LookupError: where they are not.
    """
    net.graph.arrange(before)
    net.extra.ir_version = before["ir"]
    info = onnx_package().ValueInfoProto
    net.graph.inputs = [info.FromString(base64.b64decode(each)) for each in before["inputs"]]


def revert(net: Net, record: Mapping[str, Any]) -> None:
    """Put back what an edit replaced.

    Raises:
        LookupError: where what the record names is not there.
    """
    onnx = onnx_package()
    graph = net.graph
    for name, recipe in record["weights"].items():
        if name not in graph.initialisers:
            parts = [graph.initialisers[part] for part in recipe["parts"]]
            joined = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=recipe["axis"])
            shape = recipe["shape"]
            graph.initialisers[name] = joined.reshape(shape[::-1]).T if recipe["transposed"] else joined.reshape(shape)
    made = {node.outputs[0]: node for node in graph.nodes}
    new = [made[name] for name in record["new"]]
    old = [onnx.NodeProto.FromString(base64.b64decode(each)) for each in record["old"]]
    graph.insert([node_from(each, onnx) for each in old], before=new[-1])
    graph.remove(*new)
    for name in record["constants"]:
        del graph.initialisers[name]

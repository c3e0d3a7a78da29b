"""A program of torch.export drawn as an ONNX-like net, so that passes on weights see both kinds of model alike.

Each operator of aten that is known becomes the operators of ONNX that compute the same; weights keep the names of their
placeholders, values those of their nodes. The drawing never runs: passes read it, and change weights in it or put a
Gather behind a node, which is then carried over into the program. What is not known becomes an operator of a domain of
its own between an output and an input of the net, so that nothing is assumed of it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.fx.experimental.symbolic_shapes import statically_known_true

from vambrace.assets.obfuscate.graph import Node
from vambrace.assets.obfuscate.net import Net
from vambrace.assets.obfuscate.programs import is_tensor, schema_arguments
from vambrace.models.onnx_file import onnx_package

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray
    from torch import fx

    from vambrace.assets.obfuscate.programs import Flat

__all__ = ["Canvas", "Drawing", "drawn"]

OPSET = 23
_UNKNOWN = "aten"


@dataclasses.dataclass(slots=True, eq=False)
class Drawing:
    """A net and how its weights lie in the program.

    Attributes:
        net: the drawing.
        turned: names of weights that it has transposed.
        targets: the name that each of its weights has in the program.
    """

    net: Net
    turned: frozenset[str]
    targets: dict[str, str]

    def carry_over(self, flat: Flat, before: dict[str, NDArray[Any]]) -> None:
        """Take over weights that are not what they were `before`."""
        for name, target in self.targets.items():
            array = self.net.graph.initialisers.get(name)
            if array is not None and array is not before[name]:
                array = np.ascontiguousarray(array.T if name in self.turned else array)
                flat.replace(target, torch.from_numpy(array))


def drawn(flat: Flat, *, wary: bool = False, spared: Collection[str] = ()) -> Drawing:
    """Draw a program.

    Args:
        flat: what is drawn; it is not changed.
        wary: for passes that let a layer give its channels in another order while the program runs. Values whose
            elements do not lie one behind the other count as read by something unknown, since an operator behind may
            choose another kernel by that. Functions that are computed by two formulas, for whole vectors and for the
            rest, have to get their values in their own order.
        spared: values that count as read by something unknown.
    """
    return Canvas(flat, wary=wary, spared=spared).drawing()


class Canvas:
    """A drawing in the making; rules of operators draw on it.

    Attributes:
        wary: as in `drawn`.
        graph: of the net.
    """

    def __init__(self, flat: Flat, *, wary: bool, spared: Collection[str]) -> None:
        onnx = onnx_package()
        model = onnx.ModelProto(ir_version=10, opset_import=[onnx.helper.make_opsetid("", OPSET)])
        self.wary = wary
        self._spared = spared
        self._flat = flat
        self._net = Net(model, "the program", foreign=True)
        self.graph = self._net.graph
        self.graph.extra.name = "drawing"
        self._names: dict[fx.Node, str] = {}
        self._turned: set[str] = set()
        self._targets: dict[str, str] = {}
        self._fresh = 0

    def drawing(self) -> Drawing:
        from vambrace.assets.obfuscate.aten_rules import rule_for

        shared = self._weights()
        for node in self._flat.graph.nodes:
            if node.op == "output":
                for value in node.all_input_nodes:
                    if value in self._names and self._names[value] not in self.graph.output_names:
                        self.graph.outputs.append(self._info(value, self._names[value]))
            elif node.op == "placeholder":
                if node not in self._names and is_tensor(node):
                    self._input(node)
            elif node.op == "call_function" and node not in self._names:
                rule = rule_for(node)
                if rule is None or not self._tried(rule, node):
                    self._unknown(node)
        made = [node for node in self._names if node.op != "placeholder"]
        self._read_by_unknown([node for node in made if node.name in self._spared], "a value to be spared")
        if self.wary:
            self._read_by_unknown([node for node in made if not _plain(node)], "a strided value")
        for name in shared:
            # Two readers, so that no pass takes it for the weight of one node.
            self.graph.nodes.append(Node("Identity", [name], [f"{name}~shared"]))
        return Drawing(self._net, frozenset(self._turned), self._targets)

    # What rules use.

    def name(self, node: fx.Node) -> str:
        """The name of a value."""
        return self._names[node]

    def known(self, *nodes: object) -> bool:
        """Whether all of these are values of the drawing."""
        return all(node in self._names for node in nodes)

    def is_weight(self, node: object) -> bool:
        """Whether it is a weight that passes may change."""
        return node in self._names and self._names[node] in self.graph.initialisers  # pyright: ignore[reportArgumentType]

    def emit(self, op: str, inputs: Sequence[str], output: fx.Node | str, **attributes: Any) -> str:  # noqa: ANN401
        """Draw an operator; `output` is the value of the program that it makes, or the name of one of its own."""
        made = Node(op, list(inputs), [output if isinstance(output, str) else self._made(output)])
        made.set(**attributes)
        self.graph.nodes.append(made)
        return made.outputs[0]

    def emit_many(self, op: str, inputs: Sequence[str], outputs: Sequence[fx.Node | None], **attributes: Any) -> None:  # noqa: ANN401
        """Draw an operator with several outputs."""
        names = [self.inner() if node is None else self._made(node) for node in outputs]
        made = Node(op, list(inputs), names)
        made.set(**attributes)
        self.graph.nodes.append(made)

    def same(self, node: fx.Node, value: fx.Node) -> None:
        """Let a value be the weight that another one is."""
        self._names[node] = self._names[value]

    def inner(self) -> str:
        """The name of a value that the program does not have."""
        self._fresh += 1
        return f"~{self._fresh}"

    def constant(self, values: object, dtype: Any = np.int64) -> str:  # noqa: ANN401
        """A constant that the program has in its arguments."""
        name = self.inner()
        self.graph.initialisers[name] = np.array(values, dtype=dtype)
        return name

    def outside(self, sizes: Sequence[Any]) -> str:
        """A value that is made by something unknown, such as a mask by position."""
        name = self.inner()
        stated = [size if isinstance(size, int) else str(size) for size in sizes]
        self.graph.inputs.append(onnx_package().helper.make_tensor_value_info(name, 1, stated))
        return name

    def turned(self, node: fx.Node) -> str | None:
        """A matrix among the weights, transposed, if one node alone reads it."""
        name = self._names[node]
        if not self.is_weight(node) or len(node.users) != 1 or self.graph.initialisers[name].ndim != 2:
            return None
        if name not in self._turned:
            self._turned.add(name)
            self.graph.initialisers[name] = self.graph.initialisers[name].T
        return name

    # What it does with the rest.

    def _weights(self) -> list[str]:
        """Draw weights; returns those that several placeholders stand for."""
        seen: dict[int, str] = {}
        shared: list[str] = []
        for node, target in self._flat.weights():
            tensor = self._flat.tensor(target)
            array = _array(tensor)
            if id(tensor) in seen:
                self._names[node] = seen[id(tensor)]
                shared.append(seen[id(tensor)])
            elif array is not None:
                seen[id(tensor)] = self._names[node] = node.name
                self.graph.initialisers[node.name] = array
                self._targets[node.name] = target
        mutated = {spec.target for spec in self._flat.outputs if spec.target is not None}
        shared += [name for name, target in self._targets.items() if target in mutated]
        return [name for name in dict.fromkeys(shared) if name in self.graph.initialisers]

    def _tried(self, rule: Any, node: fx.Node) -> bool:  # noqa: ANN401
        marks = len(self.graph.nodes), set(self.graph.initialisers), dict(self._names), len(self.graph.infos)
        if rule(self, node, schema_arguments(node)):
            return True
        del self.graph.nodes[marks[0] :]
        del self.graph.infos[marks[3] :]
        self._names = marks[2]
        for name in set(self.graph.initialisers) - marks[1]:
            del self.graph.initialisers[name]
        return False

    def _unknown(self, node: fx.Node) -> None:
        self._read_by_unknown(node.all_input_nodes, str(node.target))
        if is_tensor(node):
            self._input(node)

    def _read_by_unknown(self, values: Sequence[fx.Node], what: str) -> None:
        names = [self._names[value] for value in values if value in self._names]
        if names:
            self.graph.nodes.append(Node(what, names, [self.inner()], domain=_UNKNOWN))

    def _input(self, node: fx.Node) -> None:
        self._names[node] = node.name
        self.graph.inputs.append(self._info(node, node.name))

    def _made(self, node: fx.Node) -> str:
        self._names[node] = node.name
        self.graph.infos.append(self._info(node, node.name))
        return node.name

    def _info(self, node: fx.Node, name: str) -> Any:  # noqa: ANN401  onnx.ValueInfoProto
        value = node.meta["val"]
        helper = onnx_package().helper
        kind = _KINDS.get(value.dtype, 1)
        sizes = [size if isinstance(size, int) else str(size) for size in value.shape]
        return helper.make_tensor_value_info(name, kind, sizes)


_KINDS = {
    torch.float32: 1,
    torch.uint8: 2,
    torch.int8: 3,
    torch.int16: 5,
    torch.int32: 6,
    torch.int64: 7,
    torch.bool: 9,
    torch.float16: 10,
    torch.float64: 11,
    torch.bfloat16: 16,
}


def _array(tensor: torch.Tensor) -> NDArray[Any] | None:
    """The values of a weight; None for kinds that NumPy does not have."""
    plain = tensor.layout == torch.strided and tensor.dtype in _KINDS and tensor.dtype != torch.bfloat16
    return tensor.detach().cpu().numpy() if plain and not tensor.is_quantized else None


def _plain(node: fx.Node) -> bool:
    """Whether the elements of a value lie one behind the other, whatever its free sizes are."""
    value = node.meta["val"]
    expected: Any = 1
    for size, stride in zip(reversed(value.shape), reversed(value.stride()), strict=True):
        if not statically_known_true(size == 1) and not statically_known_true(stride == expected):
            return False
        expected = expected * size
    return True

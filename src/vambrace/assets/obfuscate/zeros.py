"""Whether the sign of a zero can change answers: +0 and -0 are equal, but 1 / +0 and 1 / -0 are as far apart as can be.

Looked for are nodes that divide by a value of the network which may be -0. Those that cannot are told by what makes
them: an absolute value, a square, an exponential; a sum with something that is no zero, since terms that cancel make +0
whatever their order (IEEE 754-2019, 6.3); and what passes such values on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.graph import Node
    from vambrace.assets.obfuscate.net import Net

__all__ = ["divisors_of_either_sign"]

_NEVER = (
    *("Abs", "Exp", "Sigmoid", "Softmax", "Softplus", "ReduceL1", "ReduceL2", "ReduceSumSquare", "Shape", "Size"),
    *("Cos", "Cosh", "Hardmax"),
)  # fmt: skip
_PASS_ON = (
    *("Sqrt", "Identity", "Cast", "Reshape", "Expand", "Unsqueeze", "Squeeze", "Transpose", "Flatten", "Slice"),
    *("Gather", "Split", "Tile", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "AveragePool"),
    *("GlobalAveragePool", "MaxPool"),
)  # fmt: skip


def divisors_of_either_sign(net: Net) -> int:
    """How many nodes, in bodies too, divide by a value that may be +0 as well as -0 and is not constant."""
    constants: dict[str, NDArray[Any]] = {}
    makers: dict[str, Node] = {}
    for graph in net.graphs():
        constants |= graph.constants()
        makers |= {name: node for node in graph.nodes for name in node.outputs if name}
    divisors = [
        name
        for graph in net.graphs()
        for node in graph.nodes
        for name in _divides_by(node, constants)
        if name in makers
    ]
    return sum(not _never(name, makers, constants) for name in divisors)


def _divides_by(node: Node, constants: Mapping[str, NDArray[Any]]) -> list[str]:
    if node.is_a("Reciprocal"):
        return node.inputs[:1]
    if node.is_a("Div"):
        return node.inputs[1:2]
    power = constants.get(node.inputs[1]) if node.is_a("Pow") else None
    whole = power is not None and bool((power >= 0).all())
    return [] if not node.is_a("Pow") or whole else node.inputs[:1]


def _never(name: str, makers: Mapping[str, Node], constants: Mapping[str, NDArray[Any]]) -> bool:
    """Whether a value is never -0, or the same as ever where a network's signs are turned."""
    seen: set[str] = set()
    asked = [name]
    while asked:
        name = asked.pop()
        if name in seen or name in constants or name not in makers:
            continue
        seen.add(name)
        node = makers[name]
        if node.is_a(*_NEVER) or _even(node, constants) or _kept_from_zero(node, constants):
            continue
        if not node.is_a(*_PASS_ON):
            return False
        asked.append(node.inputs[0])
    return True


def _even(node: Node, constants: Mapping[str, NDArray[Any]]) -> bool:
    if node.is_a("Mul"):
        return node.inputs[0] == node.inputs[1]
    power = constants.get(node.inputs[1]) if node.is_a("Pow") else None
    return power is not None and bool((power > 0).all() and (np.mod(power, 2) == 0).all())


def _kept_from_zero(node: Node, constants: Mapping[str, NDArray[Any]]) -> bool:
    given = [constants[each] for each in node.inputs if each in constants]
    if node.is_a("Add"):
        return any(each.size > 0 and bool((each != 0).all()) for each in given)
    if node.is_a("Max"):
        return any(each.size > 0 and bool((each > 0).all()) for each in given)
    if node.is_a("Clip"):
        low = constants.get(node.inputs[1]) if len(node.inputs) > 1 else node.value("min")
        return low is not None and bool((np.asarray(low) > 0).all())
    return False

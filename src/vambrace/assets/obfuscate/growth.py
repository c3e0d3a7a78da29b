"""By how much factors that nothing makes up for, as under a wrong key, make the numbers of a network larger."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.assets.obfuscate.graph import reads_of
from vambrace.assets.obfuscate.operators import BLIND, BOUNDED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.graph import Node
    from vambrace.assets.obfuscate.net import Net

__all__ = ["ROOM", "growth", "raised"]

ROOM = 8.0
"""By how many powers of two layers that are scaled may multiply numbers under a wrong key, all together."""


def growth(reach: int) -> float:
    """By how many powers of two a layer multiplies numbers when its weights are out of order.

    Each of them was multiplied by one of 2**-reach to 1 and divided by another: the layer multiplies by the root of
    E 4**k times E 4**-k.
    """
    fours = 4.0 ** np.arange(reach + 1)
    return 0.5 * float(np.log2(fours.mean() * (1 / fours).mean()))


_RAISING = ("Cosh", "Exp", "ReduceProd", "Sinh")
_STEEP = 2.0
"""Powers above this one make an infinity of a number some hundred times the usual."""

_NEAR = BOUNDED - {"Clip"} | {
    *("GroupNormalization", "InstanceNormalization", "LayerNormalization", "LogSoftmax", "LpNormalization"),
    *("MeanVarianceNormalization", "RMSNormalization"),
}
"""Operators that give numbers of a range that does not depend on that of what comes in, or only by its logarithm."""

_PRODUCTS = ("Einsum", "MatMul", "Mul")
_RECURRENT = ("GRU", "LSTM", "RNN")
_NEAR_ACTIVATIONS = {"HardSigmoid", "Sigmoid", "Softsign", "Tanh"}


def raised(net: Net) -> set[str]:
    """Values that become exponents, or go into products of more than two, with nothing that bounds them in between."""
    constants = net.graph.constants()
    near = {name for node in net.graph.nodes if _bounds(node) for name in node.outputs} | set(constants)
    for node in net.graph.nodes:
        if node.inputs and near.issuperset(name for name in node.inputs if name) and not _raises(node):
            near.update(node.outputs)
    powers: dict[str, float] = {}
    for node in reversed(net.graph.nodes):
        behind = max((powers.get(name, 1.0) for name in node.outputs), default=1.0)
        if node.is_a(*BLIND):
            continue
        power = math.inf if _raises(node) else 1.0 if _bounds(node) else behind * _power(node, constants, near)
        for name in reads_of(node):
            powers[name] = max(powers.get(name, 1.0), power)
    return {name for name, power in powers.items() if power > _STEEP}


def _raises(node: Node) -> bool:
    return node.is_a(*_RAISING) or any(_raises(each) for body in node.graphs() for each in body.nodes)


def _bounds(node: Node) -> bool:
    if node.is_a(*_RECURRENT):
        activations = node.value("activations", [])
        return all((each.decode() if isinstance(each, bytes) else each) in _NEAR_ACTIVATIONS for each in activations)
    if node.is_a("Clip"):
        limits = [name for name in node.inputs[1:3] if name]
        return len(limits) == 2 or {"min", "max"} <= node.attributes.keys()
    return node.is_a(*_NEAR)


def _power(node: Node, constants: Mapping[str, NDArray[Any]], near: set[str]) -> float:
    """Of what comes in, of which a node gives products."""
    if node.is_a("Pow"):
        power = constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
        if power is None or power.dtype.kind not in "fiu" or not power.size:
            return math.inf
        return max(1.0, float(np.abs(power.astype(np.float64)).max()))
    return float(max(1, sum(name not in near for name in node.inputs))) if node.is_a(*_PRODUCTS) else 1.0

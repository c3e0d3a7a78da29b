"""By how much factors that nothing makes up for, as under a wrong key, make the numbers of a network larger."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vambrace.assets.obfuscate.graph import reads_of
from vambrace.assets.obfuscate.operators import BLIND, BOUNDED

if TYPE_CHECKING:
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


_RAISING = ("Cosh", "Exp", "Sinh")
_STEEP = 2.0
"""Powers above this one make an infinity of a number some hundred times the usual."""

_NEAR = BOUNDED | {
    *("GRU", "GroupNormalization", "InstanceNormalization", "LSTM", "LayerNormalization"),
    *("LogSoftmax", "LpNormalization", "MeanVarianceNormalization", "RMSNormalization", "RNN"),
}
"""Operators that give numbers of a range that does not depend on that of what comes in, or only by its logarithm."""


def raised(net: Net) -> set[str]:
    """Values that become exponents, or bases of high powers, without anything that bounds them in between."""
    constants = net.graph.constants()

    def raises(node: Node) -> bool:
        if node.is_a("Pow"):
            power = constants.get(node.inputs[1])
            return power is None or not bool((np.abs(power.astype(np.float64)) <= _STEEP).all())
        return node.is_a(*_RAISING) or any(raises(each) for body in node.graphs() for each in body.nodes)

    found: set[str] = set()
    for node in reversed(net.graph.nodes):
        behind = not found.isdisjoint(node.outputs) and not node.is_a(*_NEAR, *BLIND)
        if behind or raises(node):
            found |= reads_of(node)
    return found

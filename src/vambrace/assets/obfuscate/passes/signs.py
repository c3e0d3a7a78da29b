"""Channels whose signs are turned where layers give them, and turned back where layers take them.

Free at run time. It works across odd functions (Tanh, Erf, Sin, Softsign, a Clip with equal bounds, ...), and where
layers follow each other directly, as a convolution and its batch normalisation do.

Rounding to nearest treats both signs alike, so every sum is the old one with the other sign, in any order, and in half
precision as well, wherever a runtime rounds to it: a sign takes no room, and the graph stays the same. One thing
is not preserved: a sum of other terms that is exactly zero is +0 either way, where the opposite of the old one would be
-0; what comes out may be the other zero then. IEEE 754 counts both as equal, so the largest difference is 0. Where a
network divides by what may be such a zero, no sign is turned: infinities of both signs would follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vambrace.assets.obfuscate.gauge import find_gauge
from vambrace.assets.obfuscate.passes.base import Applied, Pass, Profile
from vambrace.assets.obfuscate.zeros import divisors_of_either_sign

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vambrace.assets.obfuscate.graph import Node
    from vambrace.assets.obfuscate.keyed import Stream
    from vambrace.assets.obfuscate.net import Net

__all__ = ["Signs"]

_ODD = frozenset(
    {
        *("Asinh", "Atan", "Atanh", "Dropout", "Erf", "Identity", "Neg", "Round", "Sign", "Sin", "Sinh", "Softsign"),
        *("Tan", "Tanh", "AveragePool", "GlobalAveragePool"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs(Pass):
    """Turn half of all signs that can be turned."""

    name: ClassVar[str] = "signs"
    profile: ClassVar[Profile] = "exact"

    def apply(self, net: Net, stream: Stream) -> Applied:
        """Turn; the record holds the classes that were."""
        constants = net.graph.constants()
        gauge = find_gauge(net, lambda node: _odd(node, constants), positive=False, halves=True)
        signs = np.ones(gauge.count)
        eligible, left = gauge.channels - sum(gauge.pins.values()), dict(gauge.pins)
        if divisors_of_either_sign(net):
            left["a zero of either sign may be divided by"], eligible = eligible, 0
        else:
            signs[gauge.free] = stream.signs(len(gauge.free))
        gauge.apply(net, signs)
        done = int(sum((signs[layer.gives] < 0).sum() for layer in gauge.layers if not layer.shifts))
        return Applied(
            eligible=eligible,
            done=done,
            left=left,
            record={"turned": np.flatnonzero(signs < 0).tolist(), "halves": True},
        )

    def undo(self, net: Net, record: Mapping[str, Any]) -> None:
        """Turn back."""
        constants = net.graph.constants()
        # Maps may be older, from when layers of half precision had no classes.
        halves = record.get("halves", False)
        gauge = find_gauge(net, lambda node: _odd(node, constants), positive=False, halves=halves)
        signs = np.ones(gauge.count)
        signs[np.array(record["turned"], np.int64)] = -1
        gauge.apply(net, signs)


def _odd(node: Node, constants: Mapping[str, Any]) -> bool:
    if node.op != "Clip":
        return node.op in _ODD
    low, high = node.value("min"), node.value("max")
    given = [*node.inputs[1:], "", ""]
    if given[0] in constants and given[1] in constants:
        low, high = constants[given[0]].item(), constants[given[1]].item()
    return low is not None and high is not None and low == -high

"""Channels whose signs are turned where layers give them, and turned back where layers take them.

Free at run time. It works across odd functions (Tanh, Erf, Sin, Softsign, a Clip with equal bounds, ...), and where
layers follow each other directly, as a convolution and its batch normalisation do.

Rounding to nearest treats both signs alike, so every sum is the old one with the other sign, in any order, and in half
precision as well, wherever a runtime rounds to it: a sign takes no room, and the graph stays the same. But a sum of
other terms that is exactly zero is +0 either way (IEEE 754-2019, 6.3), where the opposite of the old one would be -0.
So signs are turned only where all that takes them back adds something to them, the other terms of a sum or an offset
that is no zero: to those a zero is a zero. A lone product, as a normalisation without an offset is one, would hand it
on, to where it could become an infinity of the other sign. So would a sum that starts at an offset of -0, as those of
torch do.

What is assumed. Sums that start at +0 stay there over zeros, unless a term is negative and too small for any number but
-0, as only fused products below 2**-150 are (in single precision): behind those alone a zero of the other sign shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vambrace.assets.obfuscate.gauge import find_gauge
from vambrace.assets.obfuscate.passes.base import Applied, Pass, Profile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.gauge import Gauge
    from vambrace.assets.obfuscate.graph import Node
    from vambrace.assets.obfuscate.keyed import Stream
    from vambrace.assets.obfuscate.net import Index, Net

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
        signs[gauge.free] = stream.signs(len(gauge.free))
        shown = _shown(gauge, net)
        signs[shown] = 1
        channels = np.concatenate([np.zeros(0, np.int64), *(layer.gives for layer in gauge.layers if not layer.shifts)])
        kept = int(np.isin(channels, shown[shown != 0]).sum())
        left = gauge.pins | ({"the sign of a zero would show": kept} if kept else {})
        eligible = gauge.channels - sum(left.values())
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


def _shown(gauge: Gauge, net: Net) -> NDArray[np.int64]:
    """Classes of which some layer makes products that it adds to nothing, or to zeros that may be negative."""
    constants, index = net.graph.constants(), net.index()
    found: set[int] = set()
    for layer in gauge.layers:
        first = layer.parts[0]
        if layer.shifts:
            continue
        assert first.takes is not None
        assert first.gives is not None
        taken, given = np.broadcast_arrays(first.takes, first.gives)
        terms = np.bincount(given.ravel(), minlength=len(layer.gives))
        offsets = np.zeros(len(layer.gives))
        for part in layer.parts:
            if part.adds and part.gives is not None:
                offsets[part.gives] = constants[part.name] * float(layer.node.value("beta", 1.0))
        alone = (offsets == 0) & ((terms < 2) | np.signbit(offsets) | _fused_zero(layer.node, index, constants))
        found |= set(layer.takes[taken[alone[given]]].tolist())
    return np.array(sorted(found), np.int64)


def _fused_zero(node: Node, index: Index, constants: Mapping[str, NDArray[Any]]) -> bool:
    """Whether a -0 is added behind a node: runtimes make one operator of both, and torch's linear layers are one."""
    behind = index.only_consumer(node.outputs[0])
    fixed = [constants[name] for name in behind[0].inputs if name in constants] if behind else []
    zeros = any(bool(np.any((each == 0) & np.signbit(each))) for each in fixed)
    return zeros and behind is not None and behind[0].is_a("Add")


def _odd(node: Node, constants: Mapping[str, Any]) -> bool:
    if node.op != "Clip":
        return node.op in _ODD
    low, high = node.value("min"), node.value("max")
    given = [*node.inputs[1:], "", ""]
    if given[0] in constants and given[1] in constants:
        low, high = constants[given[0]].item(), constants[given[1]].item()
    return low is not None and high is not None and low == -high <= 0

"""Channels multiplied by powers of two where layers give them, and divided where layers take them.

Free at run time, and nothing that an optimiser could take out: the graph stays the same. A power of two changes only
exponents, so every product and sum of the run is the old one times a power of two, rounded alike, as long as no
exponent leaves its range.

What is proved. Factors are 2**k with -`reach` <= k <= 0: values between layers only become smaller, and the products of
the layer that takes them are the same numbers as before. So nothing overflows that did not, whatever the input;
infinities and NaN in the input spread as they did. All weights are looked at: each one is 0 or lies in a range of
exponents that factors cannot leave, else its channel is not scaled.

What is assumed. Nothing overflows in the original either: where it makes infinities of finite inputs, this may give
finite numbers. And nothing is too small: each value that scaled layers take or give is 0, or at least 2**-38 in
magnitude. Weights are at least 2**-32, and 2**-56 when two slopes of at least 2**-12 (a batch normalisation, a product)
are fused into them. So every product of such a layer is a multiple of 2**-(38 + 23) * 2**-(56 + 23) = 2**-140, so is
every sum of them in any order, and 2**-8 times such a multiple is a float32 without rounding (the smallest is 2**-149).
Smaller values can do harm only where a whole sum is below about 2**-100.

What a lock makes of it. Under a wrong key factors stand where nothing makes up for them, so each layer multiplies what
it takes by the root of E 4**k times E 4**-k, and a deep network would leave the range of its numbers: NaN, which tells
that the key is wrong. Hence the more layers, the nearer to 1 are the factors, and in networks of more than nine
only some layers have them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vambrace.assets.obfuscate.gauge import Gauge, find_gauge
from vambrace.assets.obfuscate.growth import ROOM, growth
from vambrace.assets.obfuscate.passes.base import Applied, Pass, Profile
from vambrace.assets.obfuscate.tracing import scale_mark
from vambrace.core.options import require

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.graph import Node
    from vambrace.assets.obfuscate.keyed import Stream
    from vambrace.assets.obfuscate.net import Net

__all__ = ["Scaling"]

WIDEST = 8
FLOOR = -38
# Smallest exponents of weights, of slopes that are fused into them, of what is added, and of weights that only take
# up factors of their input.
_LOW, _LOW_SLOPE, _LOW_SHIFT, _LOW_TAKEN = -32, -12, -60, -100
_HIGH = 60
_NARROWEST = 2

_HOMOGENEOUS = frozenset(
    {
        *("Abs", "Dropout", "Identity", "LeakyRelu", "Neg", "PRelu", "Relu"),
        *("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling(Pass):
    """Scale every channel that can be.

    Attributes:
        reach: factors are 2**0 to 2**-reach; 1 to 8, or None for what a network that deep bears when it is locked
            afterwards: 8 to 2, in some of its layers where they are more than nine.
    """

    name: ClassVar[str] = "scaling"
    profile: ClassVar[Profile] = "exact"
    reach: int | None = None

    def __post_init__(self) -> None:
        require(
            self.reach is None or 1 <= self.reach <= WIDEST,
            seen=f"reach {self.reach}",
            expected=f"a whole number from 1 to {WIDEST}, for which exponents are proved to stay in range",
            fix="leave it out",
        )

    def apply(self, net: Net, stream: Stream) -> Applied:
        """Scale; the record holds the exponent of each class."""
        gauge = find_gauge(net, _homogeneous, positive=True)
        kept = _out_of_range(net, gauge)
        chosen = np.setdiff1d(gauge.free, kept)
        powers = np.zeros(gauge.count, np.int64)
        reach = self.reach
        if reach is None:
            reach, chosen = _in_range(gauge, chosen, stream.child("layers"))
        powers[chosen] = stream.powers(-reach, 0, len(chosen))
        gauge.apply(net, np.ldexp(1.0, powers))
        left = dict(gauge.pins)
        if tight := int(sum(np.isin(layer.gives, kept).sum() for layer in gauge.layers if not layer.shifts)):
            left["weights whose exponents leave no room"] = tight
        spared = np.setdiff1d(np.setdiff1d(gauge.free, kept), chosen)
        if deep := int(sum(np.isin(layer.gives, spared).sum() for layer in gauge.layers if not layer.shifts)):
            left["channels that a network so deep could not bear under a wrong key"] = deep
        done = int(sum((powers[layer.gives] != 0).sum() for layer in gauge.layers if not layer.shifts))
        return Applied(
            eligible=gauge.channels - sum(left.values()),
            done=done,
            left=left,
            record={"classes": chosen.tolist(), "powers": powers[chosen].tolist(), "floor": FLOOR},
            marks=tuple(_marks(net, gauge, chosen, reach)),
        )

    def undo(self, net: Net, record: Mapping[str, Any]) -> None:
        """Scale back."""
        gauge = find_gauge(net, _homogeneous, positive=True)
        powers = np.zeros(gauge.count, np.int64)
        powers[np.array(record["classes"], np.int64)] = record["powers"]
        gauge.apply(net, np.ldexp(1.0, -powers))


def _in_range(gauge: Gauge, chosen: NDArray[np.int64], stream: Stream) -> tuple[int, NDArray[np.int64]]:
    """The widest reach, and for which classes, as if all layers that take factors stood one behind the other."""
    free = np.zeros(gauge.count, np.bool_)
    free[chosen] = True
    taking = [layer.takes for layer in gauge.layers if not layer.shifts and free[layer.takes].any()]
    fits = [reach for reach in range(_NARROWEST, WIDEST + 1) if growth(reach) * len(taking) <= ROOM]
    if fits:
        return max(fits), chosen
    # Whole layers, for a few channels of each would tell no copies apart.
    some = np.zeros(gauge.count, np.bool_)
    for place in stream.permutation(len(taking)):
        more = some.copy()
        more[taking[place]] = True
        more &= free
        if growth(_NARROWEST) * sum(bool(more[takes].any()) for takes in taking) <= ROOM:
            some = more
    return _NARROWEST, np.flatnonzero(some)


def _homogeneous(node: Node) -> bool:
    return node.op in _HOMOGENEOUS


def _slopes(node: Node, constants: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """By what a node multiplies each channel, in magnitude."""
    names = [name for name in node.inputs if name in constants]
    slope = np.abs(constants[names[0]].astype(np.float64))
    if node.is_a("BatchNormalization"):
        variance = constants[names[3]].astype(np.float64)
        return slope / np.sqrt(variance + float(node.value("epsilon", 1e-5)))
    return 1.0 / slope if node.is_a("Div") else slope


def _marks(net: Net, gauge: Gauge, chosen: NDArray[np.int64], reach: int) -> Iterator[Mapping[str, Any]]:
    """For each free class one channel where its factor shows: in a matrix, or in one with its slopes fused in."""
    constants, index = net.graph.constants(), net.index()
    open_classes = set(chosen.tolist())
    for layer in gauge.layers:
        part = layer.parts[0]
        array = constants[part.name]
        if layer.node.is_a("BatchNormalization") and (before := index.producers.get(layer.node.inputs[0])):
            kernel = constants.get(before.inputs[1]) if before.is_a("Conv") else None
            if kernel is None:
                continue
            array = kernel * _slopes(layer.node, constants).reshape(-1, *(1,) * (kernel.ndim - 1))
            axis = 0
        elif array.ndim > 1 and part.gives is not None and max(part.gives.shape) == part.gives.size:
            axis = int(np.argmax(part.gives.shape))
        else:
            continue
        rows = [row for row, one in enumerate(layer.gives.tolist()) if one in open_classes]
        # No factor shows in a channel of zeros, which is the same in every copy.
        rows = [row for row in rows if array.take(row, axis).any()]
        rows = [row for place, row in enumerate(rows) if layer.gives[row] not in layer.gives[rows[:place]]]
        open_classes -= set(layer.gives[rows].tolist())
        if rows:
            yield scale_mark(array, axis, np.array(rows, np.int64), reach)


def _out_of_range(net: Net, gauge: Gauge) -> NDArray[np.int64]:
    """Classes of channels that meet a weight without room."""
    constants = net.graph.constants()
    found = [np.zeros(0, np.int64)]
    for layer in gauge.layers:
        for part in layer.parts:
            array = np.abs(constants[part.name].astype(np.float64))
            low = _LOW_SHIFT if part.adds else _LOW
            if layer.node.is_a("BatchNormalization", "Div", "Mul") and not part.adds:
                low = _LOW_SLOPE
                array = _slopes(layer.node, constants)
            # Products of the layer that takes a factor are what they were: its weights need only be normal.
            low_taken = _LOW_SHIFT if part.adds else _LOW_TAKEN
            for index, classes, least in ((part.gives, layer.gives, low), (part.takes, layer.takes, low_taken)):
                if index is not None:
                    # NaN and infinities fail the comparison, as they should.
                    outside = ~((array == 0) | ((array >= 2.0**least) & (array < 2.0**_HIGH)))
                    found.append(np.broadcast_to(classes[index], array.shape)[outside])
    return np.setdiff1d(np.concatenate(found), [0])

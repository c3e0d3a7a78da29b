"""Channels multiplied by powers of two where layers give them, and divided where layers take them.

Free at run time, and nothing that an optimiser could take out: the graph stays the same. A power of two changes only
exponents, so every product and sum of the run is the old one times a power of two, rounded alike, as long as no
exponent leaves its range.

What is proved. Factors are 2**k with -`reach` <= k <= 0: values between layers only become smaller, and the products of
the layer that takes them are the same numbers as before; so nothing overflows that did not, whatever the input, and
infinities and NaN come out where they did. All weights are looked at: each one is 0 or lies in a range of exponents
that factors cannot leave, else its channel is not scaled.

What is assumed, `Applied.record["floor"]`: a value that such a layer takes or gives is 0, or at least 2**-41. Then all
its products are multiples of 2**-(41 + 23) * 2**-(36 + 23) * 2**-18 > 2**-149 / 2**-8, and so are their sums, in any
order: nothing is rounded because it is too small (Goldberg 1991, "gradual underflow"). A value below the floor can make
a difference only where whole sums are below 2**-100, and then of no more than 2**-149.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vambrace.assets.obfuscate.gauge import Gauge, find_gauge
from vambrace.assets.obfuscate.passes.base import Applied, Pass, Profile
from vambrace.core.options import require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.graph import Node
    from vambrace.assets.obfuscate.keyed import Stream
    from vambrace.assets.obfuscate.net import Net

__all__ = ["Scaling"]

WIDEST = 8
FLOOR = -41
# Smallest exponents of weights that multiply, of batch normalisations' slopes, and of what is added.
_LOW, _LOW_SLOPE, _LOW_SHIFT, _LOW_TAKEN = -36, -18, -60, -100
_HIGH = 60

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
        reach: factors are 2**0 to 2**-reach; 1 to 8.
    """

    name: ClassVar[str] = "scaling"
    profile: ClassVar[Profile] = "exact"
    reach: int = WIDEST

    def __post_init__(self) -> None:
        require(
            1 <= self.reach <= WIDEST,
            seen=f"reach {self.reach}",
            expected=f"a whole number from 1 to {WIDEST}, for which exponents are proved to stay in range",
            fix="leave it at 8",
        )

    def apply(self, net: Net, stream: Stream) -> Applied:
        """Scale; the record holds the exponent of each class."""
        gauge = find_gauge(net, _homogeneous, positive=True)
        kept = _out_of_range(net, gauge)
        chosen = np.setdiff1d(gauge.free, kept)
        powers = np.zeros(gauge.count, np.int64)
        powers[chosen] = stream.powers(-self.reach, 0, len(chosen))
        gauge.apply(net, np.ldexp(1.0, powers))
        left = dict(gauge.pins)
        if tight := int(sum(np.isin(layer.gives, kept).sum() for layer in gauge.layers if not layer.shifts)):
            left["weights whose exponents leave no room"] = tight
        done = int(sum((powers[layer.gives] != 0).sum() for layer in gauge.layers if not layer.shifts))
        return Applied(
            eligible=gauge.channels - sum(left.values()),
            done=done,
            left=left,
            record={"classes": chosen.tolist(), "powers": powers[chosen].tolist(), "floor": FLOOR},
        )

    def undo(self, net: Net, record: Mapping[str, Any]) -> None:
        """Scale back."""
        gauge = find_gauge(net, _homogeneous, positive=True)
        powers = np.zeros(gauge.count, np.int64)
        powers[np.array(record["classes"], np.int64)] = record["powers"]
        gauge.apply(net, np.ldexp(1.0, -powers))


def _homogeneous(node: Node) -> bool:
    return node.op in _HOMOGENEOUS


def _out_of_range(net: Net, gauge: Gauge) -> NDArray[np.int64]:
    """Classes of channels that meet a weight without room."""
    constants = net.graph.constants()
    found = [np.zeros(0, np.int64)]
    for layer in gauge.layers:
        for part in layer.parts:
            array = np.abs(constants[part.name].astype(np.float64))
            low = _LOW_SHIFT if part.adds else _LOW
            if layer.node.is_a("BatchNormalization") and not part.adds:
                low = _LOW_SLOPE
                variance = constants[layer.node.inputs[4]].astype(np.float64)
                array = array / np.sqrt(variance + float(layer.node.value("epsilon", 1e-5)))
            # Products of the layer that takes a factor are what they were: its weights need only be normal.
            low_taken = _LOW_SHIFT if part.adds else _LOW_TAKEN
            for index, classes, least in ((part.gives, layer.gives, low), (part.takes, layer.takes, low_taken)):
                if index is not None:
                    # NaN and infinities fail the comparison, as they should.
                    outside = ~((array == 0) | ((array >= 2.0**least) & (array < 2.0**_HIGH)))
                    found.append(np.broadcast_to(classes[index], array.shape)[outside])
    return np.setdiff1d(np.concatenate(found), [0])

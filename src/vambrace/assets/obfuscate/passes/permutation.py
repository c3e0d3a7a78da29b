"""Channels of a layer in another order, and put back in order while the model runs by a Gather behind it.

The sums of the layer that reads them run in the old order, so results are equal bit for bit; a permutation baked into
that layer's weights would change their order, and belongs to the tolerance profile. The indices stand in the file: what
this hides is which filter is which until somebody folds them in.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vambrace.assets.obfuscate.costs import Costs
from vambrace.assets.obfuscate.edits import OLDEST_IR, drop_weights
from vambrace.assets.obfuscate.graph import Node
from vambrace.assets.obfuscate.passes.base import Applied, Pass, Profile, require_share
from vambrace.assets.obfuscate.places import Place, find_places
from vambrace.assets.obfuscate.tracing import arrangement_mark
from vambrace.core.options import Ratio
from vambrace.models.onnx_file import onnx_package

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.keyed import Stream
    from vambrace.assets.obfuscate.net import Info, Net

__all__ = ["Permutation"]

_INT64 = 7
_NEGATIVE = 11  # operator set from which on axes may be counted from the end


@dataclass(frozen=True, slots=True, kw_only=True)
class Permutation(Pass):
    """Permute the channels of some layers.

    Attributes:
        share: of the eligible layers, 0 to 1.
        slowdown: most that gathers may add to the time of a run, as a share of it, by an estimate from sizes.
    """

    name: ClassVar[str] = "permutation"
    profile: ClassVar[Profile] = "exact"
    share: float | None = None
    slowdown: Ratio = 0.02

    def __post_init__(self) -> None:
        require_share(self.share, slowdown=self.slowdown)

    def apply(self, net: Net, stream: Stream) -> Applied:
        """Permute; the record holds each order, and which weights follow it."""
        found, left = find_places(net)
        places = [place for place in found if not place.uneven]
        left |= Counter(place.uneven for place in found if place.uneven)
        before, infos = net.graph.order(), net.infer()
        eligible = [place for place in places if _block(place) > 1 and _axis(net, place, infos)]
        if len(eligible) < len(places):
            left["one channel in a group, or an axis that is not known"] = len(places) - len(eligible)
        done: list[dict[str, Any]] = []
        marks: list[Mapping[str, Any]] = []
        costs = Costs(net, infos)
        room = self.slowdown * costs.total
        wanted = math.ceil((self.share or 0.0) * len(eligible) - 1e-9)
        for place in [eligible[int(number)] for number in stream.permutation(len(eligible))]:
            cost = costs.gather(place)
            if len(done) == wanted or cost > room:
                continue
            room -= cost
            starts = range(0, place.weights.gives, _block(place))
            order = np.concatenate([start + stream.permutation(_block(place)) for start in starts])
            done.append({"given": place.given, "order": order.tolist()})
            _reorder(net, place, order)
            (value, index) = net.fresh(2)
            place.nodes[-1].outputs[0] = value
            net.graph.initialisers[index] = np.argsort(order)
            if net.extra.ir_version < OLDEST_IR:
                net.graph.inputs.append(onnx_package().helper.make_tensor_value_info(index, _INT64, [len(order)]))
            blocks = [_block(place)] * (len(order) // _block(place))
            marks.append(arrangement_mark(net.graph.initialisers[index], blocks))
            gather = Node("Gather", [value, index], [place.given])
            gather.set(axis=_axis(net, place, infos))
            at = next(at for at, node in enumerate(net.graph.nodes) if node is place.nodes[-1])
            net.graph.nodes.insert(at + 1, gather)
        if len(done) < wanted:
            left["gathers that would take too long"] = wanted - len(done)
        return Applied(
            eligible=len(eligible),
            done=len(done),
            left=left,
            record={"places": done, "before": before},
            marks=tuple(marks),
        )

    def undo(self, net: Net, record: Mapping[str, Any]) -> None:
        """Take the gathers out, and put the weights back in order."""
        orders = {entry["given"]: np.argsort(entry["order"]) for entry in record["places"]}
        index = net.index()
        for value in orders:
            gather = index.producers[value]
            index.producers[gather.inputs[0]].outputs[0] = value
            net.graph.remove(gather)
            drop_weights(net, gather.inputs[1:])
        places = {place.given: place for place in find_places(net)[0]}
        for value, order in orders.items():
            _reorder(net, places[value], order)
        net.graph.arrange(record["before"])


def _block(place: Place) -> int:
    """Channels that may change places: those of one group."""
    return place.weights.gives // int(place.nodes[0].value("group", 1))


def _axis(net: Net, place: Place, infos: Mapping[str, Info]) -> int:
    """That of the channels, counted from the front, as old operator sets need it; 0 where that is not known."""
    if not place.nodes[0].is_a("MatMul"):
        return 1
    shape = infos[place.given].shape if place.given in infos else None
    if shape is None:
        return -1 if net.opset() >= _NEGATIVE else 0
    return len(shape) - 1


def _reorder(net: Net, place: Place, order: NDArray[np.int64]) -> None:
    constants = net.graph.constants()
    for part in place.parts:
        assert part.gives is not None
        axis = int(np.argmax(part.gives.shape))
        net.graph.set_constant(part.name, np.ascontiguousarray(constants[part.name].take(order, axis)))

"""Channels, neurons and heads in another order, written into the weights: nothing runs for it, and nothing shows it.

The layers that share a set of channels are found together (`vambrace.assets.obfuscate.ties`): a convolution, its
normalisation, what is added to it by a residual connection, every part of a concatenation, and all that read them; the
heads of attention and the width inside of each. Sums over channels are then taken in another order, which moves their
last bits.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vambrace.assets.obfuscate.axes import order_of
from vambrace.assets.obfuscate.passes.base import Applied, Pass, Profile
from vambrace.assets.obfuscate.passes.choosing import check_share, chosen
from vambrace.assets.obfuscate.ties import ties_of
from vambrace.core.options import Ratio

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.axes import Axis
    from vambrace.assets.obfuscate.keyed import Stream
    from vambrace.assets.obfuscate.net import Net

__all__ = ["BakedPermutation"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BakedPermutation(Pass):
    """Permute channels together with all that follows from them.

    Attributes:
        share: of the groups of channels. It costs nothing, so all by default.
    """

    share: Ratio = 1.0

    name: ClassVar[str] = "baked_permutation"
    profile: ClassVar[Profile] = "tolerance"

    def __post_init__(self) -> None:
        check_share(self.share)

    def apply(self, net: Net, stream: Stream) -> Applied:
        ties = ties_of(net)
        taken = chosen(ties.groups, self.share, stream.child("places"))
        orders: dict[Axis, NDArray[np.int64]] = {}
        for number, group in enumerate(taken):
            orders[group.leaf] = stream.child("order", number).permutation(group.leaf.size)
        places: dict[str, dict[str, list[int]]] = {}
        for name in dict.fromkeys(name for group in taken for name, _ in group.places):
            array = net.graph.initialisers[name]
            for position, axis in enumerate(ties.axes[name]):
                order = order_of(axis, orders)
                if order is not None:
                    array = np.take(array, order, axis=position)
                    places.setdefault(name, {})[str(position)] = order.tolist()
            net.graph.initialisers[name] = array
        return Applied(eligible=len(ties.groups), done=len(taken), left=ties.left, record={"orders": places})

    def undo(self, net: Net, record: Mapping[str, Any]) -> None:
        for name, orders in record["orders"].items():
            array = net.graph.initialisers[name]
            for position, order in orders.items():
                array = np.take(array, np.argsort(np.asarray(order)), axis=int(position))
            net.graph.initialisers[name] = array

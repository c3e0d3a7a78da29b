"""Another basis between two linear maps: the first map's results are turned, the second one turns them back.

Where everything that touches a set of channels is linear in them (queries against keys, values before the output
projection, two layers without a function between, linear bottlenecks with their residual sums), any orthogonal matrix
may stand in between. Every channel becomes a mixture of all, so there is none left to recognise one by one; whoever
holds the original solves for the matrix instead. Orthogonal, and computed in float64, so that rounding is not enlarged.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vambrace.assets.obfuscate.axes import turned
from vambrace.assets.obfuscate.bases import orthogonal
from vambrace.assets.obfuscate.graph import reads_of
from vambrace.assets.obfuscate.passes.base import Profile
from vambrace.assets.obfuscate.passes.choosing import check_share, chosen
from vambrace.assets.obfuscate.passes.oneway import OneWay
from vambrace.assets.obfuscate.ties import ties_of
from vambrace.core.options import Ratio

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.keyed import Stream
    from vambrace.assets.obfuscate.net import Net
    from vambrace.assets.obfuscate.passes.base import Applied

__all__ = ["Rebasis"]

_MOST = 4096
"""Channels: a basis takes their square in memory, and their cube in time."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rebasis(OneWay):
    """Put a random orthogonal matrix and its inverse between linear maps. It cannot be undone bit for bit.

    Attributes:
        share: of the groups of channels. It costs nothing, so all by default.
    """

    share: Ratio = 1.0

    name: ClassVar[str] = "rebasis"
    profile: ClassVar[Profile] = "tolerance"

    def __post_init__(self) -> None:
        check_share(self.share)

    def apply(self, net: Net, stream: Stream) -> Applied:
        ties = ties_of(net)
        linear = [group for group in ties.groups if not group.rigid]
        # Weights that nothing reads hide nothing, and there is no way back from what is done to them.
        read = set(net.graph.output_names).union(*(reads_of(node) for node in net.graph.nodes))
        small = [group for group in linear if group.leaf.size <= _MOST]
        wanted = [group for group in small if any(name in read for name, _ in group.places)]
        usable = [group for group in wanted if all(_mixes(net.graph.initialisers[name]) for name, _ in group.places)]
        taken = chosen(usable, self.share, stream.child("places"))
        for number, group in enumerate(taken):
            basis = orthogonal(group.leaf.size, stream.child("basis", number))

            def mixed(array: NDArray[np.float64], basis: NDArray[np.float64] = basis) -> NDArray[np.float64]:
                return np.einsum("ij,bja->bia", basis, array, optimize=True)

            for name, position in group.places:
                array = net.graph.initialisers[name]
                axis = ties.axes[name][position]
                new = turned(array.astype(np.float64), position, axis, group.leaf, mixed)
                net.graph.initialisers[name] = new.astype(array.dtype)
        left = dict(ties.left)
        left["channels that pass through something that is not linear"] = len(ties.groups) - len(linear)
        left[f"weights that nothing reads, and more than {_MOST} channels"] = len(linear) - len(wanted)
        left["weights that are not float32 or float64, or are infinite"] = len(wanted) - len(usable)
        return self.report(len(usable), len(taken), left)


def _mixes(array: NDArray[Any]) -> bool:
    """Whether sums of its elements are numbers: of an infinite one, as in masks, all channels would get their part."""
    if array.dtype not in {np.dtype("f4"), np.dtype("f8")}:
        return False
    largest = float(np.abs(array).max(initial=0.0))
    return largest < float(np.finfo(array.dtype).max) / max(array.size, 1)

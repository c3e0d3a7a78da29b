"""How many keys of a place a model tells apart: channels that are alike change places, and zeros take any factor."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.graph import Node
    from vambrace.assets.obfuscate.net import Net
    from vambrace.assets.obfuscate.places import Place

__all__ = ["different_keys"]


def different_keys(net: Net, place: Place, block: int, *, reach: int) -> float:
    """How many orders and factors of a place's channels give models that differ, as a logarithm to base 2.

    Args:
        net: that has the place.
        place: whose channels are put in order.
        block: channels that change places among each other, such as those of a group.
        reach: factors are 2**-reach to 2**reach; 0 where there are none.
    """
    constants, channels = net.graph.constants(), place.weights.gives
    if not channels:
        return 0.0
    digests, alive = [hashlib.sha256() for _ in range(channels)], np.zeros(channels, bool)
    readers = net.index().consumers.get(place.given, [])
    lost = np.zeros(channels, bool)
    if readers and place.given not in net.graph.output_names:
        lost = ~np.any([_read(node, at, constants, channels) for node, at in readers], axis=0)
    for part in place.parts:
        if part.gives is None or part.gives.size < channels or not constants[part.name].size:
            continue  # of one number for all channels, none has a part of its own
        rows = np.moveaxis(constants[part.name], int(np.argmax(part.gives.shape)), 0).reshape(channels, -1)
        alive |= (rows != 0).any(axis=1)
        for digest, row in zip(digests, rows, strict=True):
            digest.update((row + row.dtype.type(0)).tobytes())  # zeros of either sign are one, as pruning leaves both
    alive &= ~lost
    # What nothing reads further is alike, whatever it holds.
    held = [b"" if gone else digest.digest() for digest, gone in zip(digests, lost, strict=True)]
    orders = 0.0
    for begin in range(0, channels, block):
        alike = Counter(held[begin : begin + block]).values()
        orders += math.lgamma(block + 1) - sum(math.lgamma(count + 1) for count in alike)
    return max(0.0, orders) / math.log(2) + int(alive.sum()) * math.log2(2 * reach + 1)


def _read(node: Node, position: int, constants: Mapping[str, NDArray[Any]], channels: int) -> NDArray[np.bool_]:
    """Which channels a reader takes any number of: all, unless it multiplies them by weights."""
    weight = constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
    every = np.ones(channels, bool)
    if weight is None or position != 0 or not node.is_a("Conv", "Gemm", "MatMul"):
        return every
    axis = 1 if node.is_a("Conv") or node.value("transB", 0) else max(0, weight.ndim - 2)
    if weight.ndim < 2 or weight.shape[axis] != channels or not weight.size:  # in groups, another axis, of rank 0
        return every
    return np.any(np.moveaxis(weight, axis, 0).reshape(channels, -1) != 0, axis=1)

"""How many keys of a place a model tells apart: channels that are alike change places, and zeros take any factor."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from vambrace.assets.obfuscate.net import Net
    from vambrace.assets.obfuscate.places import Place

__all__ = ["REACH", "different_keys"]

REACH = 3
"""Factors are 2**-3 to 2**3."""


def different_keys(net: Net, place: Place, block: int, *, scaled: bool) -> float:
    """How many orders and factors of a place's channels give models that differ, as a logarithm to base 2.

    Args:
        net: that has the place.
        place: whose channels are put in order.
        block: channels that change places among each other, such as those of a group.
        scaled: whether each has a factor too.
    """
    constants, channels = net.graph.constants(), place.weights.gives
    digests, alive = [hashlib.sha256() for _ in range(channels)], np.zeros(channels, bool)
    for part in place.parts:
        if part.gives is None or part.gives.size < channels:
            continue  # of one number for all channels, none has a part of its own
        rows = np.moveaxis(constants[part.name], int(np.argmax(part.gives.shape)), 0).reshape(channels, -1)
        alive |= (rows != 0).any(axis=1)
        for digest, row in zip(digests, rows, strict=True):
            digest.update(row.tobytes())
    held = [digest.digest() for digest in digests]
    orders = 0.0
    for begin in range(0, channels, block):
        alike = Counter(held[begin : begin + block]).values()
        orders += math.lgamma(block + 1) - sum(math.lgamma(count + 1) for count in alike)
    factors = int(alive.sum()) * math.log2(2 * REACH + 1) if scaled else 0.0
    return max(0.0, orders) / math.log(2) + factors

"""Weights that are wrong and look right: those of a layer in another arrangement.

Output and input channels change places, and kernels are mirrored. So whatever does not depend on the arrangement is the
same for the decoy and the layer: the distribution of weights, singular values, norms, the smoothness of filters.
Channels change places only with some of like size, because layers that were trained together have rows and columns of
like size at the same place; and factors that obfuscation itself put on channels are taken off before and put on again
after, so that the decoy's rows and columns cancel those of its neighbours as the layer's do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.keyed import Stream

__all__ = ["decoy", "similar_order", "sizes_of"]

_MOST_ALIKE = 8


def similar_order(sizes: NDArray[np.float64], stream: Stream) -> tuple[NDArray[np.int64], list[int]]:
    """An order that exchanges entries with neighbours in size.

    Args:
        sizes: (n,).
        stream: chooses among the orders.

    Returns:
        The order (n,), and how many were exchanged with each other: one of the product of their factorials.
    """
    ranks = np.argsort(sizes, kind="stable").astype(np.int64)
    count = -(-len(sizes) // _MOST_ALIKE)
    order = np.empty(len(sizes), np.int64)
    blocks = np.array_split(ranks, max(1, count))
    for block in blocks:
        order[block] = block[stream.permutation(len(block))]
    return order, [len(block) for block in blocks]


def sizes_of(weights: NDArray[Any], axis: int) -> NDArray[np.float64]:
    """The norm of each channel along an axis."""
    others = tuple(place for place in range(weights.ndim) if place != axis)
    return np.sqrt(np.sum(np.square(weights, dtype=np.float64), axis=others))


def decoy(
    weights: NDArray[Any], factor: NDArray[np.float64], order: NDArray[np.int64], columns: Stream | None
) -> NDArray[Any]:
    """The weights in another arrangement.

    Args:
        weights: (rows, ...); rows are output channels.
        factor: what obfuscation multiplied them with, powers of two and signs, of a shape that fits.
        order: of the rows.
        columns: chooses an order of the second axis and mirrors of the others; None for weights of one axis.
    """
    bare = weights / factor
    made = bare[order]
    if columns is not None:
        made = made[:, similar_order(sizes_of(bare, 1), columns)[0]]
        for axis in range(2, weights.ndim):
            if int(columns.integers(0, 2)):
                made = np.flip(made, axis)
    return np.ascontiguousarray((made * factor).astype(weights.dtype))

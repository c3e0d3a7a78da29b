"""Weights that are wrong and look right: those of a layer in another arrangement.

Output and input channels change places, kernels are mirrored, and then every row and every column is multiplied by the
power of two that gives it the largest exponent of the row or column that stood there. So the decoy has the layer's own
mantissas, its distribution of magnitudes and of singular values but for those powers, filters as smooth as its filters,
and rows and columns that fit the layers before and behind as well as the true ones do. Nothing is drawn from a
distribution that could be told from training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.keyed import Stream

__all__ = ["decoy_matrix", "decoy_vector"]


def decoy_matrix(weights: NDArray[Any], groups: int, stream: Stream, order: NDArray[np.int64]) -> NDArray[Any]:
    """A decoy of a matrix or kernel.

    Args:
        weights: (rows, columns, ...); rows are output channels.
        groups: of rows; rows change places inside their group.
        stream: for columns and mirrors.
        order: of the rows.
    """
    columns = stream.permutation(weights.shape[1])
    made = weights[order][:, columns]
    for axis in range(2, weights.ndim):
        if int(stream.integers(0, 2)):
            made = np.flip(made, axis)
    made = made * np.exp2(_exponents(weights, 0) - _exponents(made, 0)).astype(weights.dtype)
    # A column of a convolution in groups is another channel for each group.
    inner = weights.shape[0] // groups
    blocks, wanted = made.reshape(groups, inner, *made.shape[1:]), weights.reshape(groups, inner, *weights.shape[1:])
    blocks = blocks * np.exp2(_exponents(wanted, (0, 2)) - _exponents(blocks, (0, 2))).astype(weights.dtype)
    return np.ascontiguousarray(blocks.reshape(weights.shape))


def decoy_vector(weights: NDArray[Any], order: NDArray[np.int64]) -> NDArray[Any]:
    """A decoy of one number a channel, (rows,): signs and mantissas of other channels, the exponents of its own."""
    mantissas, _ = np.frexp(weights[order])
    _, exponents = np.frexp(weights)
    return np.ldexp(mantissas, exponents).astype(weights.dtype)


def _exponents(weights: NDArray[Any], axes: int | tuple[int, ...]) -> NDArray[np.float64]:
    """The largest exponent along the other axes, of a shape that fits; 0 where all is zero."""
    kept = {axes} if isinstance(axes, int) else set(axes)
    others = tuple(axis for axis in range(weights.ndim) if axis not in kept)
    peaks = np.max(np.abs(weights), axis=others, keepdims=True)
    return np.where(peaks > 0, np.frexp(peaks)[1], 0).astype(np.float64)

"""Random orthogonal matrices, drawn from a key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.keyed import Stream

__all__ = ["orthogonal"]

# Axes are mixed in blocks of at most so many: a matrix of n by n takes n**3 steps to make.
_BLOCK = 256


def orthogonal(size: int, stream: Stream) -> NDArray[np.float64]:
    """float64 (size, size), its inverse is its transpose.

    Blocks of Haar-distributed matrices (Mezzadri, Notices of the AMS 54, 2007, section 5), of at most 256 axes that a
    permutation has chosen.
    """
    basis = np.zeros((size, size))
    order = stream.permutation(size)
    for start in range(0, size, _BLOCK):
        axes = order[start : start + _BLOCK]
        drawn, upper = np.linalg.qr(stream.normal((len(axes), len(axes))))
        basis[np.ix_(axes, axes)] = drawn * np.sign(np.diag(upper))
    return basis

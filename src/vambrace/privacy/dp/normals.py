"""Words of a keystream to normal numbers: the method of Box and Muller, on whole chunks that stay in the cache.

A pair of independent normals is a point of the plane: its squared radius is twice an exponential number, -2 ln(u), its
angle uniform. Each pair has words of its own, and both its numbers are used. The functions write into arrays they are
given; NumPy's ufuncs do the work because their logarithm, sine and cosine of float32 are vectorised on every CPU with
AVX2 and two to three times as fast as torch's here.

How far they reach. u is never below 2^-63, so a pair lies within radius sqrt(126 ln 2) = 9.345, and no number is more
than 9.345 standard deviations from zero. A true pair is outside with probability 2^-63: cutting there moves n numbers
by a total variation of at most n 2^-64, and a guarantee (epsilon, delta) of uncut noise becomes one of
delta + (1 + e^epsilon) n 2^-64. For ten million parameters and 100,000 steps, n = 1e12, that adds
5.5e-8 (1 + e^epsilon).

How fine they are. Floating-point numbers have gaps; docs/privacy/dp-randomness.md says what that leaves open. Where
float32 rounds u to 1, what the rounding took away is drawn from further bits, so that a pair of exact zeros has
probability 2^-57 (float64: 2^-54) and not 2^-25.

Box, Muller 1958, "A note on the generation of random normal deviates".
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["normals_double", "normals_single"]

FARTHEST = 9.346  # standard deviations; no number of either function is beyond

_TINY = 2.0**-126  # of u^2: counts for u near 2^-63 only, and keeps the logarithm finite at u = 0
_TINY_SINGLE = np.float32(_TINY)
_SCALES = np.array([[2.0**-31], [2.0**-63], [math.pi * 2.0**-31]], dtype=np.float32)  # whole, fraction, angle
_SLIVER = np.float32(2.0**8)  # makes the scaled fraction, 2^-33 to either side, one of 2^-24


def normals_single(words: NDArray[np.int32], work: NDArray[np.float32]) -> NDArray[np.float32]:
    """Two normal numbers from each column of words.

    Args:
        words: (3, m), uniform on all 32-bit integers, independent.
        work: (4, m), contiguous, written over.

    Returns:
        (2 * m,), the last two rows of `work`.
    """
    radius, fine, cosine, sine = work
    np.copyto(work[:3], words)
    np.multiply(work[:3], _SCALES, out=work[:3])
    # u = |whole + fraction| / 2^31, uniform on (0, 1). The fraction counts where the whole is small, in the tail; a
    # larger whole has all the bits that float32 can hold, and swallows it.
    np.add(radius, fine, out=radius)
    np.multiply(radius, radius, out=radius)
    np.add(radius, _TINY_SINGLE, out=radius)
    np.log(radius, out=radius)
    # ln(u^2) is -r^2. Near u = 1, float32 knows u only to 2^-24: the fraction, not used there, spreads it over the gap.
    np.multiply(fine, _SLIVER, out=fine)
    np.add(radius, fine, out=radius)
    np.abs(radius, out=radius)
    np.sqrt(radius, out=radius)
    np.sin(cosine, out=sine)
    np.cos(cosine, out=cosine)
    np.multiply(work[2:], radius, out=work[2:])
    return work[2:].reshape(-1)


def normals_double(words: NDArray[np.int64], work: NDArray[np.float64]) -> NDArray[np.float64]:
    """`normals_single` in float64, from two 64-bit words a pair: `words` (2, m), `work` (3, m)."""
    radius, cosine, sine = work
    np.copyto(work[:2], words)
    np.multiply(radius, 2.0**-63, out=radius)
    np.multiply(radius, radius, out=radius)
    np.add(radius, _TINY, out=radius)
    np.log(radius, out=radius)
    np.abs(radius, out=radius)
    np.sqrt(radius, out=radius)
    np.multiply(cosine, math.pi * 2.0**-63, out=cosine)
    np.sin(cosine, out=sine)
    np.cos(cosine, out=cosine)
    np.multiply(work[1:], radius, out=work[1:])
    return work[1:].reshape(-1)

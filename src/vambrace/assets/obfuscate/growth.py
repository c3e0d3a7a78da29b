"""By how much factors that nothing makes up for, as under a wrong key, make the numbers of a network larger."""

from __future__ import annotations

import numpy as np

__all__ = ["ROOM", "growth"]

ROOM = 8.0
"""By how many powers of two layers that are scaled may multiply numbers under a wrong key, all together."""


def growth(reach: int) -> float:
    """By how many powers of two a layer multiplies numbers when its weights are out of order.

    Each of them was multiplied by one of 2**-reach to 1 and divided by another: the layer multiplies by the root of
    E 4**k times E 4**-k.
    """
    fours = 4.0 ** np.arange(reach + 1)
    return 0.5 * float(np.log2(fours.mean() * (1 / fours).mean()))

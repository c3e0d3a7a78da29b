"""How many weights are masked after which step: the cubic schedule of gradual pruning, and the exact count it gives.

Zhu and Gupta 2017, arXiv 1710.01878, section 3, equation 1; MindArmour's privacy suppression follows the same curve.
Steps are counted from 1: step t is the moment after the t-th optimizer step. Imports no torch.

    >>> [round(cubic(step, start_step=0, end_step=4, start_sparsity=0.0, end_sparsity=0.8), 4) for step in range(6)]
    [0.0, 0.4625, 0.7, 0.7875, 0.8, 0.8]
    >>> masked_count(100, 0.29), masked_count(3, 0.99)
    (29, 2)
"""

from __future__ import annotations

import math

__all__ = ["cubic", "last_growth", "masked_count"]


def cubic(step: int, *, start_step: int, end_step: int, start_sparsity: float, end_sparsity: float) -> float:
    """The share of weights to mask: s_e + (s_s - s_e) * (1 - (t - start) / (end - start))^3 from start to end.

    0 before `start_step`, and `end_sparsity` from `end_step` on, however long training goes on: without that bound
    the cubic would rise again, beyond 1 in the end.

    It never falls, rounding included.

    Args:
        step: 0 or more.
        start_step: 0 or more.
        end_step: not before `start_step`; where they are equal, the schedule is one jump.
        start_sparsity: 0 or more.
        end_sparsity: at least `start_sparsity`, below 1.
    """
    if step < start_step:
        return 0.0
    if step >= end_step:
        return end_sparsity
    left = (end_step - step) / (end_step - start_step)
    return end_sparsity + (start_sparsity - end_sparsity) * (left * left * left)


def last_growth(step: int, *, start_step: int, end_step: int, every: int) -> int | None:
    """The last step up to `step` at which masks grow; None before the first.

    They grow at the start, every so many steps after it, and at the end in any case. Nothing can grow at step 0.
    """
    if step >= end_step:
        return end_step
    last = step - (step - start_step) % every
    return last if last >= max(start_step, 1) else None


def masked_count(size: int, sparsity: float, *, keep_at_least: int = 1) -> int:
    """How many of `size` elements are masked: `sparsity * size` rounded down, but `keep_at_least` are kept.

    A product within 1e-12 (relative) of a whole number is that number: 0.29 * 100 is 28.999999999999996 in floats.
    """
    product = sparsity * size
    nearest = round(product)
    count = nearest if math.isclose(product, nearest, rel_tol=1e-12) else math.floor(product)
    return max(min(count, size - keep_at_least), 0)

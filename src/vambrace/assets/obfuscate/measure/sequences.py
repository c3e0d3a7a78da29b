"""Two sequences of operators beside each other: edit distance and longest common subsequence, bit-parallel.

>>> edits("abcd", "acxd"), common("abcd", "acxd")
(2, 3)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

__all__ = ["common", "edits"]


def edits(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """Least number of insertions, deletions and replacements (Levenshtein).

    Myers, J. ACM 46, 1999, in the form of Hyyro, 2003, with one number of len(one) bits for a machine word.
    """
    if not one or not other:
        return max(len(one), len(other))
    places, whole, last = _places(one), (1 << len(one)) - 1, 1 << (len(one) - 1)
    plus, minus, score = whole, 0, len(one)
    for item in other:
        equal = places.get(item, 0)
        vertical = equal | minus
        horizontal = ((((equal & plus) + plus) & whole) ^ plus) | equal
        up = minus | (whole & ~(horizontal | plus))
        down = plus & horizontal
        score += bool(up & last) - bool(down & last)
        up = ((up << 1) | 1) & whole
        down = (down << 1) & whole
        plus = down | (whole & ~(vertical | up))
        minus = up & vertical
    return score


def common(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence (Hyyro, Australasian Workshop on Combinatorial Algorithms, 2004)."""
    places, whole = _places(one), (1 << len(one)) - 1
    row = whole
    for item in other:
        matched = row & places.get(item, 0)
        row = ((row + matched) | (row - matched)) & whole
    return len(one) - row.bit_count()


def _places(sequence: Sequence[Hashable]) -> dict[Hashable, int]:
    found: dict[Hashable, int] = {}
    for place, item in enumerate(sequence):
        found[item] = found.get(item, 0) | (1 << place)
    return found

"""Edit distance and common subsequences against the tables of the textbook."""

from __future__ import annotations

import numpy as np
import pytest

from vambrace.assets.obfuscate.measure.sequences import common, edits


def slow_edits(one: str, other: str) -> int:
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        last, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (a != b))
    return row[-1]


def slow_common(one: str, other: str) -> int:
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def test_random_sequences_agree_with_the_tables() -> None:
    rng = np.random.default_rng(0)
    for _ in range(150):
        one, other = ("".join(rng.choice(list("abcd"), size=rng.integers(0, 90))) for _ in range(2))
        assert edits(one, other) == slow_edits(one, other)
        assert common(one, other) == slow_common(one, other)


@pytest.mark.parametrize(
    ("one", "other", "apart", "shared"), [("", "", 0, 0), ("a", "", 1, 0), ("", "ab", 2, 0), ("ab", "ba", 2, 1)]
)
def test_ends(one: str, other: str, apart: int, shared: int) -> None:
    assert (edits(one, other), common(one, other)) == (apart, shared)

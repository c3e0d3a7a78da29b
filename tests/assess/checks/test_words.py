"""Sentences say what the numbers are, and no more digits than they have."""

from __future__ import annotations

import pytest

from vambrace.assess.checks.words import between, listed, number, radius, share
from vambrace.core.findings import Interval
from vambrace.core.intervals import wilson


@pytest.mark.parametrize(
    ("right", "n", "expected"),
    [
        (431, 1000, "about 43 of 100 samples (40 to 46)"),
        (983, 1000, "about 98.3 of 100 samples (97.3 to 98.9)"),
        (9999, 10000, "about 99.99 of 100 samples (99.9 to 99.998)"),
        (8, 1000, "about 0.8 of 100 samples (0.4 to 1.6)"),
        (0, 60, "none of 60 samples (0 to 6 of 100)"),
        (1200, 1200, "all 1,200 samples (99.7 to 100 of 100)"),
        (7, 12, "7 of 12 samples (32 to 81 of 100)"),
    ],
)
def test_share(right: int, n: int, expected: str) -> None:
    assert share(right / n, n, "samples", wilson(right, n)) == expected


def test_numbers_and_intervals() -> None:
    assert between(None) == ""
    assert between(Interval(low=-1.2345, high=12345.6, method="x")) == " (-1.23 to 12,346)"
    assert number(0.0) == "0"


@pytest.mark.parametrize(
    ("eps", "expected"), [(8 / 255, "8/255"), (0.2, "0.2"), (0.6, "0.6"), (1 / 255, "1/255"), (2.1, "2.1"), (8.0, "8")]
)
def test_radius(eps: float, expected: str) -> None:
    assert radius(eps) == expected


def test_lists() -> None:
    assert [listed(each) for each in ((1, 2, 3), (1, 3, 5), (1, 2), (4,))] == ["1 to 3", "1, 3 and 5", "1 and 2", "4"]

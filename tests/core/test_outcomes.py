"""Outcomes pack and unpack; what `pack` does not write is nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vambrace.core.outcomes import pack, unpack


@given(st.lists(st.booleans(), max_size=200))
def test_there_and_back(outcomes):
    text = pack(outcomes)
    assert unpack(text) == tuple(outcomes)
    assert len(text) <= len(outcomes) / 4 + 6


def test_first_sample_in_the_highest_bit():
    assert pack([True, False, False, False, True]) == "5:88"
    assert pack([]) == "0:"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "5:",
        "5:8",
        "5:888",
        "5:8f",
        "05:88",
        "-1:8",
        "4:G",
        "4: 8",
        "4:F",
        "9999999999:0",
        None,
        5,
        b"4:8",
        ["4:8"],
    ],
)
def test_anything_else_is_nothing(text):
    assert unpack(text) is None

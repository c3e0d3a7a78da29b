"""The schedule: values of the formula, where it begins and ends, and exact counts."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vambrace.privacy.suppress.schedule import cubic, last_growth, masked_count

PLAIN = {"start_step": 0, "end_step": 10, "start_sparsity": 0.0, "end_sparsity": 0.9}


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.0), (1, 0.9 - 0.9 * 0.729), (5, 0.9 - 0.9 * 0.125), (9, 0.9 - 0.9 * 0.001), (10, 0.9), (11, 0.9)],
)
def test_values_of_the_formula(step: int, expected: float) -> None:
    assert cubic(step, **PLAIN) == pytest.approx(expected, abs=1e-15)


def test_nothing_before_the_start_and_the_start_value_at_it() -> None:
    later = {"start_step": 5, "end_step": 9, "start_sparsity": 0.25, "end_sparsity": 0.75}
    assert [cubic(step, **later) for step in (0, 4, 5, 7, 9)] == [0.0, 0.0, 0.25, 0.6875, 0.75]


def test_one_jump_where_start_is_end() -> None:
    jump = {"start_step": 3, "end_step": 3, "start_sparsity": 0.0, "end_sparsity": 0.5}
    assert [cubic(step, **jump) for step in (2, 3, 4)] == [0.0, 0.5, 0.5]


@given(st.integers(0, 50), st.integers(1, 10**6), st.floats(0, 0.999), st.floats(0, 0.999), st.data())
def test_it_never_falls_and_stays_between_its_ends(
    start: int, length: int, one: float, other: float, data: st.DataObject
) -> None:
    low, high = sorted((one, other))
    end = start + length
    step = data.draw(st.integers(start, end + 5))
    options = {"start_step": start, "end_step": end, "start_sparsity": low, "end_sparsity": high}
    here, then = cubic(step, **options), cubic(step + 1, **options)
    assert here <= then <= high
    assert here >= low - 1e-15
    exact = high + (Fraction(low) - Fraction(high)) * (1 - Fraction(min(step, end) - start, length)) ** 3
    assert float(exact) == pytest.approx(here, abs=1e-14)


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 30))
def test_masks_grow_at_the_start_every_so_often_and_at_the_end(start: int, length: int, every: int) -> None:
    end = max(start + length, 1)
    expected = {step for step in range(start, end + 1) if (step - start) % every == 0 or step == end} - {0}
    options = {"start_step": start, "end_step": end, "every": every}
    assert {step for step in range(60) if last_growth(step, **options) == step} == expected
    for step in range(60):
        assert last_growth(step, **options) == max((each for each in expected if each <= step), default=None)


@given(st.integers(0, 10**6), st.fractions(0, Fraction(999, 1000), max_denominator=1000), st.integers(1, 5))
def test_counts_are_the_floor_of_what_people_wrote(size: int, share: Fraction, keep: int) -> None:
    expected = max(min(math.floor(share * size), size - keep), 0)
    assert masked_count(size, float(share), keep_at_least=keep) == expected


def test_a_product_that_floats_put_below_a_whole_number() -> None:
    assert math.floor(0.29 * 100) == 28
    assert masked_count(100, 0.29) == 29
    assert masked_count(0, 0.9) == masked_count(1, 0.9) == 0

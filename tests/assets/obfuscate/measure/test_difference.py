"""Differences of answers: known bits, known spacings, NaN, and decisions."""

from __future__ import annotations

import numpy as np
import pytest

from vambrace.assets.obfuscate.measure.difference import NOTHING, compare, joined


def one(a: object, b: object, dtype: str = "float32"):
    return compare([np.array(a, dtype=dtype)], [np.array(b, dtype=dtype)])


def test_equal_answers_differ_nowhere() -> None:
    found = one([[1.0, np.nan, -np.inf, 0.0]], [[1.0, np.nan, -np.inf, 0.0]])
    assert found.exact
    assert (found.max_abs, found.max_relative, found.max_row, found.max_ulp, found.nan_apart) == (0, 0, 0, 0, 0)
    assert (found.rows, found.elements) == (1, 4)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_neighbours_are_one_apart(dtype: str) -> None:
    values = np.array([1.0, -1.0, 3.5, 1e-3, -7e-5], dtype=dtype)
    for steps in (1, 2, 5):
        other = values.copy()
        for _ in range(steps):
            other = np.nextafter(other, np.array(np.inf, dtype=dtype))
        assert compare([values], [other]).max_ulp == steps


def test_the_smallest_numbers_around_zero_are_two_apart() -> None:
    tiny = np.nextafter(np.float32(0), np.float32(1))
    assert one([tiny], [-tiny]).max_ulp == 2


def test_zeros_of_either_sign_are_equal_in_value_and_not_in_bits() -> None:
    found = one([0.0], [-0.0])
    assert (found.max_abs, found.max_ulp, found.differing, found.exact) == (0, 0, 1, False)


def test_far_apart_doubles_do_not_overflow() -> None:
    found = one([1.7e308], [-1.7e308], "float64")
    assert found.max_ulp == pytest.approx(2 * (2**63 - 2**52), rel=0.01)


@pytest.mark.parametrize(
    ("a", "b", "apart"), [(np.nan, 1.0, 1), (1.0, np.nan, 1), (np.inf, 1.0, 0), (np.inf, -np.inf, 0)]
)
def test_what_is_not_finite_on_one_side_is_infinitely_far(a: float, b: float, apart: int) -> None:
    found = one([[a, 2.0]], [[b, 2.0]])
    assert found.max_abs == np.inf
    assert found.max_row > 1e-5
    assert found.nan_apart == apart
    assert not found.exact


def test_every_nan_is_the_same_nan() -> None:
    bits = np.array([0x7FC00000, 0xFFC00001], dtype=np.uint32).view(np.float32)
    assert compare([bits[:1]], [bits[1:]]).exact


def test_relative_differences_by_element_and_by_sample() -> None:
    found = one([[100.0, 1.0], [1.0, 1.0]], [[100.0, 1.5], [1.0, 1.25]])
    assert (found.max_abs, found.max_relative, found.max_row) == (0.5, 0.5, 0.25)


def test_another_shape_or_type_is_no_equality() -> None:
    for other in (np.zeros((1, 3), np.float32), np.zeros((1, 2), np.float64)):
        found = compare([np.zeros((1, 2), np.float32)], [other])
        assert (found.shapes_apart, found.exact, found.max_row) == (1, False, np.inf)


def test_whole_numbers_and_truth_values() -> None:
    assert one([1, 2], [1, 4], "int64").max_abs == 2
    assert one([True, False], [True, True], "bool").differing == 1
    assert one([1, 2], [1, 2], "int64").exact


def test_decisions_and_near_ties() -> None:
    a = [[0.9, 0.1], [0.5, 0.4999999], [0.0, 3.0]]
    b = [[0.8, 0.2], [0.4999999, 0.5], [3.0, 0.0]]
    found = one(a, b)
    assert (found.top1_same, found.top1_of, found.near_ties) == (1, 3, 1)


def test_maps_decide_along_channels_and_single_scores_do_not() -> None:
    maps = np.zeros((1, 2, 1, 3), np.float32)
    other = maps.copy()
    other[0, 1, 0, 2] = 1.0
    assert compare([maps], [other]).top1_same == 2
    assert compare([maps], [other]).top1_of == 3
    assert compare([np.zeros((4, 1), np.float32)], [np.zeros((4, 1), np.float32)]).top1_of == 0


def test_counts_add_up_and_extremes_do_not() -> None:
    total = joined(joined(NOTHING, one([[1.0, 2.0]], [[1.0, 3.0]])), one([[1.0, 2.0]], [[1.5, 2.0]]))
    assert (total.rows, total.elements, total.differing, total.max_abs) == (2, 4, 2, 1.0)

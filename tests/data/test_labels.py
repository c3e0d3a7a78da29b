from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vambrace.data.labels import MAX_CLASSES, check_labels
from vambrace.errors import DataRefused


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, ">i4", np.uint64, bool])
def test_integers_of_every_type(dtype: Any) -> None:
    out = check_labels(np.array([1, 0, 1], dtype), count=3)
    assert out.dtype == np.int64
    assert out.tolist() == [1, 0, 1]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=50))
def test_valid_labels_are_unchanged(values: list[int]) -> None:
    classes = tuple("abcdefghij")
    assert check_labels(np.array(values), count=len(values), classes=classes).tolist() == values
    assert check_labels(np.array(values)[:, None], count=len(values)).tolist() == values


@pytest.mark.parametrize(
    ("raw", "classes", "says"),
    [
        (np.array([0, -1, 2]), (), "sample 1 has label -1; expected 0 to"),
        (np.array([0, 1, 3]), ("a", "b", "c"), "sample 2 has label 3; expected 0 to 2, for the 3 classes"),
        (np.array([1, 2, 3]), ("a", "b", "c"), "count from 1: store labels - 1"),
        (np.array([0, 1, MAX_CLASSES]), (), f"label {MAX_CLASSES}"),
        (np.array([0, 1, 2**63], np.uint64), (), "label 9223372036854775808"),
        (np.array([0.0, 1.0, 2.0]), (), "labels of type float64; expected integers. Fix: store labels.astype('int64')"),
        (np.array(["cat", "dog", "cat"]), (), "labels of type"),
        (np.eye(3), (), "labels.argmax(axis=1)"),
        (np.eye(3, dtype=np.uint8), (), "one-hot labels of shape (3, 3)"),
        (np.array([[1, 2], [0, 1], [1, 1]]), (), "labels of shape (3, 2)"),
        (np.array([0, 1]), (), "3 inputs and 2 labels"),
        (np.array(1), (), "labels of shape ()"),
    ],
)
def test_refused(raw: np.ndarray, classes: tuple[str, ...], says: str) -> None:
    with pytest.raises(DataRefused) as caught:
        check_labels(raw, count=3, classes=classes)
    assert caught.value.code == "E307"
    assert says in str(caught.value)

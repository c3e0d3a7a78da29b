import numpy as np
import pytest

from vambrace.assets.obfuscate.axes import Axis, order_of, pin, stiffen, tie, turned

REVERSED = np.arange(3)[::-1]


def test_a_leaf_takes_the_form_of_what_it_is_tied_to() -> None:
    width = Axis.leaf(12)
    heads, inside = Axis.leaf(3), Axis.leaf(4)
    tie(width, Axis.product([heads, inside]))
    assert width.leaves() == [heads, inside]
    assert order_of(width, {heads: REVERSED}).tolist() == [8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3]
    assert order_of(width, {inside: np.array([1, 0, 2, 3])}).tolist() == [1, 0, 2, 3, 5, 4, 6, 7, 9, 8, 10, 11]


def test_marks_travel_to_what_is_tied_before_and_after() -> None:
    for mark, name in ((pin, "pinned"), (stiffen, "rigid")):
        first, second, third = Axis.leaf(6), Axis.leaf(6), Axis.product([Axis.leaf(2), Axis.leaf(3)])
        mark(first)
        tie(first, second)
        tie(second, third)
        assert all(getattr(leaf, name) for leaf in third.leaves())
        assert first.leaves() == second.leaves() == third.leaves()


def test_products_are_cut_until_they_fit() -> None:
    a, b = Axis.leaf(6), Axis.leaf(4)
    c, d = Axis.leaf(2), Axis.leaf(12)
    left, right = Axis.product([a, b]), Axis.product([c, d])
    tie(left, right)
    assert [leaf.size for leaf in left.leaves()] == [2, 3, 4]
    assert left.leaves() == right.leaves()
    assert not any(leaf.pinned for leaf in left.leaves())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Axis.product([Axis.leaf(4), Axis.leaf(6)]), Axis.product([Axis.leaf(6), Axis.leaf(4)])),
        (Axis.product([Axis.leaf(4), Axis.leaf(6)]), Axis.sum([Axis.leaf(10), Axis.leaf(14)])),
        (Axis.leaf(3), Axis.leaf(4)),
    ],
)
def test_what_does_not_fit_is_pinned(first: Axis, second: Axis) -> None:
    tie(first, second)
    assert all(leaf.pinned for axis in (first, second) for leaf in axis.leaves())


def test_sums_are_cut_at_every_border() -> None:
    left = Axis.sum([Axis.leaf(5), Axis.leaf(5)])
    right = Axis.sum([Axis.leaf(3), Axis.leaf(4), Axis.leaf(3)])
    tie(left, right)
    assert [leaf.size for leaf in left.leaves()] == [3, 2, 2, 3]
    order = order_of(right, {left.leaves()[0]: REVERSED, left.leaves()[3]: REVERSED})
    assert order.tolist() == [2, 1, 0, 3, 4, 5, 6, 9, 8, 7]


def test_the_same_part_twice_is_one_part() -> None:
    part = Axis.leaf(4)
    both = Axis.sum([part, part])
    tie(both, Axis.sum([Axis.leaf(2), Axis.leaf(6)]))
    assert len(set(both.leaves())) < len(both.leaves())
    assert sum(leaf.size for leaf in both.leaves()) == 8


def test_an_array_is_changed_wherever_the_leaf_stands() -> None:
    leaf = Axis.leaf(3)
    axis = Axis.sum([Axis.product([Axis.leaf(2), leaf]), Axis.leaf(1), leaf])
    array = np.arange(20.0).reshape(10, 2)
    same = turned(array, 0, axis, leaf, lambda part: part[:, ::-1])
    assert np.array_equal(same, array[order_of(axis, {leaf: REVERSED})])
    assert turned(array, 0, axis, Axis.leaf(3), lambda part: part * np.nan) is array


def test_parts_of_one_and_none_are_nothing() -> None:
    leaf = Axis.leaf(4)
    assert Axis.product([Axis.leaf(1), leaf]) is leaf
    assert Axis.sum([Axis.leaf(0), leaf]) is leaf
    assert Axis.product([]).size == 1
    assert order_of(leaf, {}) is None

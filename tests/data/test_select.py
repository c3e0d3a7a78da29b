from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vambrace import data
from vambrace.core.contract import InputContract
from vambrace.data.batches import sample_id
from vambrace.data.select import choose, stratified
from vambrace.errors import ConfigError

SETS = st.lists(st.integers(0, 5), min_size=1, max_size=80).map(np.array)


def ids_of(count: int) -> np.ndarray:
    return np.array([sample_id(str(at)) for at in range(count)])


def by_seats(labels: np.ndarray, ids: np.ndarray, limit: int) -> list[int]:
    """The definition, slowly: hand out one seat after the other, the first of each class before all others."""
    waiting = {label: sorted(np.flatnonzero(labels == label), key=lambda at: ids[at]) for label in set(labels.tolist())}
    sizes = {label: len(members) for label, members in waiting.items()}
    taken = dict.fromkeys(waiting, 0)
    chosen: list[int] = []
    for _ in range(min(limit, len(labels))):
        open_ones = [label for label in waiting if taken[label] < sizes[label]]
        best = min(
            open_ones,
            key=lambda label: (
                taken[label] > 0,
                Fraction(2 * taken[label] + 1, 2 * sizes[label]),
                ids[waiting[label][taken[label]]],
            ),
        )
        chosen.append(int(waiting[best][taken[best]]))
        taken[best] += 1
    return sorted(chosen)


def largest_remainders(labels: np.ndarray, ids: np.ndarray, limit: int) -> list[int]:
    """The method that is not used: allocate by largest remainder, then take the first ids of each class."""
    classes, sizes = np.unique(labels, return_counts=True)
    shares = limit * sizes / sizes.sum()
    seats = np.floor(shares).astype(int)
    for at in np.argsort(seats - shares, kind="stable")[: limit - seats.sum()]:
        seats[at] += 1
    members = [sorted(np.flatnonzero(labels == label), key=lambda at: ids[at]) for label in classes]
    return sorted(int(at) for mine, count in zip(members, seats, strict=True) for at in mine[:count])


@given(SETS, st.integers(1, 90))
def test_equals_the_definition(labels: np.ndarray, limit: int) -> None:
    ids = ids_of(len(labels))
    assert stratified(labels, ids, limit).tolist() == by_seats(labels, ids, limit)


@given(SETS, st.integers(1, 80), st.integers(1, 80))
def test_smaller_is_a_subset_of_larger(labels: np.ndarray, one: int, other: int) -> None:
    ids = ids_of(len(labels))
    small, large = (set(stratified(labels, ids, limit).tolist()) for limit in sorted((one, other)))
    assert small <= large
    assert len(small) == min(one, other, len(labels))


@given(SETS, st.integers(1, 80))
def test_every_class_keeps_a_sample(labels: np.ndarray, limit: int) -> None:
    chosen = stratified(labels, ids_of(len(labels)), limit)
    classes = len(set(labels.tolist()))
    assert len(set(labels[chosen].tolist())) >= min(classes, limit)
    assert (np.diff(chosen) > 0).all()


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(1, 4))
def test_whole_shares_are_met_exactly(shares: list[int], times: int) -> None:
    labels = np.repeat(np.arange(len(shares)), np.array(shares) * times)
    chosen = stratified(labels, ids_of(len(labels)), sum(shares))
    assert np.bincount(labels[chosen], minlength=len(shares)).tolist() == shares


def test_allocation_stays_near_the_share() -> None:
    sizes = np.array([980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009])  # MNIST's test set
    labels = np.repeat(np.arange(10), sizes)
    for limit in (10, 100, 333, 1000, 9999):
        counts = np.bincount(labels[stratified(labels, ids_of(10_000), limit)])
        assert (abs(counts - limit * sizes / 10_000) < 1).all()


@given(SETS, st.integers(1, 80), st.randoms(use_true_random=False))
def test_source_order_does_not_matter(labels: np.ndarray, limit: int, random) -> None:
    ids = ids_of(len(labels))
    order = list(range(len(labels)))
    random.shuffle(order)
    straight = ids[stratified(labels, ids, limit)]
    shuffled = ids[order][stratified(labels[order], ids[order], limit)]
    assert set(straight.tolist()) == set(shuffled.tolist())


def test_why_not_largest_remainders() -> None:
    """Negative control: on this set a larger limit would drop a sample that a smaller one had (Alabama's paradox)."""
    labels = np.repeat([0, 1, 2], [6, 6, 2])
    ids = ids_of(14)
    assert not set(largest_remainders(labels, ids, 10)) <= set(largest_remainders(labels, ids, 11))
    assert set(stratified(labels, ids, 10).tolist()) <= set(stratified(labels, ids, 11).tolist())


def test_choose() -> None:
    labels, ids = np.array([0, 1] * 5), ids_of(10)
    assert choose(labels, ids, head=None, limit=None).tolist() == list(range(10))
    assert choose(labels, ids, head=3, limit=None).tolist() == [0, 1, 2]
    assert choose(labels, ids, head=99, limit=99).tolist() == list(range(10))
    assert max(choose(labels, ids, head=6, limit=4)) < 6


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "10"])
def test_amounts(wrong) -> None:
    for amounts in ({"head": wrong, "limit": None}, {"head": None, "limit": wrong}):
        with pytest.raises(ConfigError, match="positive whole number"):
            choose(np.array([0]), ids_of(1), **amounts)


def test_subset() -> None:
    pixels = np.arange(2 * 5 * 5, dtype=np.float32).reshape(2, 5, 5)
    whole = data.from_arrays(np.repeat(pixels, 3, axis=0), [0, 1, 2, 3, 4, 5], contract=InputContract(bounds=(0, 99)))
    part = data.subset(whole, [4, 0, -1])
    assert (len(part), part.labels, part.name) == (3, (4, 0, 5), whole.name)
    assert part.ids == tuple(whole.ids[at] for at in (4, 0, 5))
    read, direct = part.read([2, 0]), whole.read([5, 4])
    assert (read.hashes, read.names) == (direct.hashes, direct.names)
    assert read.inputs.equal(direct.inputs)
    assert data.subset(part, [1]).ids == (whole.ids[0],)
    with pytest.raises(IndexError):
        data.subset(whole, [6])

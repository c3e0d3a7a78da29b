"""Shapes and looks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vambrace.core.access import Access
from vambrace.search.pace import bucket, choose_pace
from vambrace.testing.counting import CountingModel


@given(st.integers(0, 5000), st.integers(1, 5000))
def test_buckets_hold_the_rows_and_little_more(rows: int, most: int) -> None:
    size = bucket(min(rows, most), most)
    assert min(rows, most) <= size <= most
    assert size <= min(rows, most) * 1.0625 + 1


def test_buckets_are_few() -> None:
    sizes = {bucket(rows, 4096) for rows in range(1, 4097)}
    assert len(sizes) <= 16 * 12
    assert bucket(0, 64) == 0


def test_models_that_count_queries_are_looked_at_every_step() -> None:
    for access in (Access.LABELS, Access.SCORES):
        pace = choose_pace(CountingModel(lambda points: points, access=access), "cuda", 64)
        assert (pace.look_every, pace.pending_share, pace.vacant_share, pace.padded) == (1, 0.0, 0.0, False)
    pace = choose_pace(CountingModel(lambda points: points), "cuda", 64)
    assert pace.look_every > 1
    assert choose_pace(CountingModel(lambda points: points), "cpu", 64).look_every == 1
    assert choose_pace(CountingModel(lambda points: points), "cpu", 3).confirm_rows == 3

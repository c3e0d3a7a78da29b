"""Curves and heat map from findings, sound and malformed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from report import sample
from vambrace.core.findings import Status
from vambrace.report.views.robustness import curves, heat_map

WHOLE = sample.results().findings
LAST = next(f for f in WHOLE if f.check == "pgd-linf" and f.series)


def test_one_picture_a_norm() -> None:
    found = curves(WHOLE)
    assert [(curve.norm, curve.lines, curve.left_out) for curve in found] == [("L∞", 2, 0), ("L2", 1, 0)]
    assert found[0].unreliable == ()
    assert found[1].unreliable == ("pgd-l2",)


BAD: list[dict[str, Any]] = [
    {},
    {"eps": [0.1]},
    {"eps": [0.1], "accuracy": [0.5, 0.6]},
    {"eps": [0.2, 0.1], "accuracy": [0.5, 0.6]},
    {"eps": [0.1, 0.1], "accuracy": [0.5, 0.6]},
    {"eps": [-0.1, 0.1], "accuracy": [0.5, 0.6]},
    {"eps": [], "accuracy": []},
    {"eps": "abc", "accuracy": "abc"},
    {"eps": [None], "accuracy": [0.5]},
    {"eps": [True], "accuracy": [0.5]},
    {"eps": [float("nan")], "accuracy": [0.5]},
    {"eps": {"a": 1}, "accuracy": 3},
]


@pytest.mark.parametrize("series", BAD)
def test_malformed_series_draw_nothing(series: dict[str, Any]) -> None:
    assert curves([replace(LAST, series=series)]) == []


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["eps", "accuracy", "low", "high"]), json))
def test_any_series_is_survived(series: dict[str, Any]) -> None:
    curves([replace(LAST, series=series)])


def test_missing_interval_ends_are_no_band() -> None:
    series = {"eps": [0.1, 0.2], "accuracy": [0.5, 0.4], "low": [None, None], "high": [None, None]}
    (curve,) = curves([replace(LAST, series=series)])
    assert 'class="band' not in curve.picture


def test_heat_map() -> None:
    heat = heat_map(WHOLE)
    assert heat is not None
    assert heat.severities == (1, 2, 3, 4, 5)
    assert [row.name for row in heat.rows] == list(sample.PERTURBATIONS)
    rotate = heat.rows[2].cells
    assert [cell.text for cell in rotate] == ["81.4", "59.5", "33.8", "10.0", "10.0"]
    assert [cell.step for cell in rotate] == [2, 4, 7, 9, 9]
    jpeg = heat.rows[4].cells
    assert [cell.kind for cell in jpeg] == ["sound"] * 3 + ["missing"] * 2
    assert jpeg[3].note == "The time budget ended."
    assert heat.worst == "The weakest field is rotate at severity 4: 10.0 % right."


def test_unreliable_fields_have_no_colour_and_are_never_the_worst() -> None:
    found = [replace(f, status=Status.UNRELIABLE) if f.check == "natural-rotate" else f for f in WHOLE]
    heat = heat_map(found)
    assert heat is not None
    assert {(cell.kind, cell.step) for cell in heat.rows[2].cells} == {("unreliable", None)}
    assert "gaussian_blur" in heat.worst


def test_one_perturbation_twice_shows_the_checks() -> None:
    twice = [*WHOLE, *(replace(f, check="again") for f in WHOLE if f.check == "natural-rotate")]
    heat = heat_map(twice)
    assert heat is not None
    assert [row.check for row in heat.rows if row.name == "rotate"] == ["natural-rotate", "again"]
    assert [row.check for row in heat.rows if row.name == "jpeg"] == [""]


@pytest.mark.parametrize("value", [-0.2, 0.0, 1.0, 1.7])
def test_steps_stay_on_the_scale(value: float) -> None:
    first = next(f for f in WHOLE if f.metric == "accuracy@1")
    heat = heat_map([replace(first, value=value)])
    assert heat is not None
    assert heat.rows[0].cells[0].step in range(11)


def test_nothing_to_draw() -> None:
    assert heat_map(sample.refused().findings) is None
    assert curves(sample.refused().findings) == []

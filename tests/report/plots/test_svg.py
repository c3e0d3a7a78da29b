"""Escaping, refusal of style attributes, and labels that never overlap."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from vambrace.report.plots.svg import element, path, picture, spread

NASTY = '"><script>alert(1)</script>'


def test_everything_is_escaped() -> None:
    made = element("text", NASTY, element("tspan", "<b>"), class_=NASTY, x=1.5)
    tree = ET.fromstring(made)
    assert tree.text == NASTY
    assert tree.get("class") == NASTY
    assert [child.tag for child in tree] == ["tspan"]
    assert isinstance(made, Markup)


def test_style_attributes_are_refused() -> None:
    with pytest.raises(ValueError, match="class"):
        element("text", style="fill:red")


def test_picture_is_announced() -> None:
    made = picture(element("line"), key="k", width=10, height=5.5, title="T <", description="D")
    tree = ET.fromstring(made)
    assert tree.get("role") == "img"
    assert tree.get("viewBox") == "0 0 10 5.5"
    assert tree.get("aria-labelledby") == "k-title k-desc"
    assert [(child.tag, child.get("id"), child.text) for child in tree[:2]] == [
        ("title", "k-title", "T <"),
        ("desc", "k-desc", "D"),
    ]


def test_numbers_are_short() -> None:
    assert path([(0, 1 / 3), (10.0, 2)], closed=True) == "M0,0.33L10,2Z"


@given(st.lists(st.floats(0, 300), max_size=9), st.floats(1, 20))
def test_spread(places: list[float], gap: float) -> None:
    put = spread(places, gap=gap, low=0, high=300)
    assert len(put) == len(places)
    ordered = sorted(zip(places, put, strict=True), key=lambda pair: pair[1])
    assert all(later - earlier >= gap - 1e-6 for (_, earlier), (_, later) in zip(ordered, ordered[1:], strict=False))
    assert [place for place, _ in ordered] == sorted(places)
    if (len(places) - 1) * gap <= 300:
        assert all(-1e-6 <= where <= 300 + 1e-6 for where in put)


def test_spread_leaves_alone_what_fits() -> None:
    assert spread([100, 10, 50], gap=20, low=0, high=200) == [100, 10, 50]
    assert spread([100, 100, 100], gap=20, low=0, high=110) == [70, 90, 110]

"""The small bar beside a number."""

from __future__ import annotations

import math
from xml.etree import ElementTree as ET

import pytest

from vambrace.report.plots.interval import interval_bar


def places(*args: float, **more: float) -> dict[str, tuple[float, ...]]:
    tree = ET.fromstring(interval_bar(*args, **more))
    found = {node.get("class", ""): (float(node.get("x1", 0)), float(node.get("x2", 0))) for node in tree.iter("line")}
    dot = next(iter(tree.iter("circle")))
    return found | {dot.get("class", ""): (float(dot.get("cx", "")),)}


def test_places_are_in_proportion() -> None:
    found = places(0.5, 0.25, 0.75, threshold=0.25)
    left, right = found["track"]
    assert found["dot"][0] == pytest.approx((left + right) / 2)
    assert found["range"] == pytest.approx((left + (right - left) / 4, left + (right - left) * 3 / 4))
    assert found["threshold"][0] == found["range"][0]


def test_a_narrow_interval_is_still_seen() -> None:
    low, high = places(0.5, 0.5, 0.5)["range"]
    assert high - low >= 1


def test_parts_that_are_not_there() -> None:
    assert set(places(0.5)) == {"track", "dot"}
    assert "dot hollow" in places(0.5, reliable=False)


@pytest.mark.parametrize("value", [-3, 7, math.inf, -math.inf, math.nan])
def test_never_outside(value: float) -> None:
    found = places(value, value, value, threshold=value)
    left, right = found["track"]
    assert all(left <= x <= right + 1 for xs in found.values() for x in xs)


def test_hidden_from_screen_readers() -> None:
    tree = ET.fromstring(interval_bar(0.5))
    assert tree.get("aria-hidden") == "true"

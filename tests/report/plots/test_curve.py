"""The curve draws the points it was given, and says which lines mean nothing."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from vambrace.report.plots.curve import MOST_LINES, Line, accuracy_curve

EPS = (0.0, 4 / 255, 8 / 255)


def drawn(*lines: Line, norm: str = "linf") -> ET.Element:
    return ET.fromstring(accuracy_curve(lines, norm=norm, key="c"))


def points(tree: ET.Element, kind: str) -> list[list[tuple[float, float]]]:
    found = [node.get("d", "") for node in tree.iter("path") if (node.get("class") or "").split()[0] == kind]
    return [[(float(x), float(y)) for x, y in re.findall(r"([\d.]+),([\d.]+)", d)] for d in found]


def test_points_lie_where_the_numbers_are() -> None:
    tree = drawn(Line("pgd", EPS, (1.0, 0.5, 0.0), (0.9, 0.4, 0.0), (1.0, 0.6, 0.1)))
    (line,) = points(tree, "line")
    (x0, top), (x1, middle), (x2, bottom) = line
    assert abs((x1 - x0) - (x2 - x1)) < 0.02
    assert abs((middle - top) - (bottom - middle)) < 0.02
    ticks = {node.text: float(node.get("y", "")) - 4 for node in tree.iter("text") if node.get("class") == "tick"}
    assert abs(ticks["100%"] - top) < 0.02
    assert abs(ticks["0%"] - bottom) < 0.02
    (band,) = points(tree, "band")
    assert len(band) == 6
    assert "8/255" in ticks


def test_no_interval_no_band() -> None:
    assert points(drawn(Line("pgd", EPS, (1.0, 0.5, 0.0))), "band") == []


def test_lines_are_told_apart_without_colour() -> None:
    lines = [Line(f"attack-{place}", EPS, (1.0, 0.5 + place / 20, place / 10)) for place in range(4)]
    tree = drawn(*lines)
    looks = [node.get("class", "").split() for node in tree.iter("path") if node.get("class", "").startswith("line")]
    assert len({look[-1] for look in looks}) == 4  # dashes
    labels = [node.text for node in tree.iter("text") if (node.get("class") or "").startswith("name")]
    assert labels == [line.name for line in lines]


def test_unreliable_lines_are_ghosts() -> None:
    tree = drawn(Line("pgd", EPS, (1.0, 0.9, 0.9), (0.9, 0.8, 0.8), (1.0, 1.0, 1.0), reliable=False))
    assert points(tree, "band") == []
    labels = [node.text for node in tree.iter("text") if "ghost" in (node.get("class") or "")]
    assert labels == ["pgd", "unreliable"]
    assert "(unreliable)" in "".join(tree.itertext())


def test_labels_do_not_overlap() -> None:
    tree = drawn(*(Line(f"a{place}", EPS, (1.0, 0.5, 0.001 * place)) for place in range(8)))
    heights = sorted(
        float(node.get("y", "")) for node in tree.iter("text") if (node.get("class") or "").startswith("name")
    )
    assert min(b - a for a, b in zip(heights, heights[1:], strict=False)) >= 15.9
    assert heights[0] > 0
    assert heights[-1] < 300


def test_at_most_so_many_lines() -> None:
    tree = drawn(*(Line(f"a{place}", EPS, (1.0, 0.5, 0.1)) for place in range(MOST_LINES + 5)))
    assert len(points(tree, "line")) == MOST_LINES


def test_hostile_names_are_text() -> None:
    name = "</text><script>alert(1)</script>"
    tree = drawn(Line(name, EPS, (1.0, 0.5, 0.1)), norm=name)
    assert not list(tree.iter("script"))
    assert name in "".join(tree.itertext())


def test_values_beyond_the_axes_stay_inside() -> None:
    (line,) = points(drawn(Line("x", (0.0, 1.0), (1.7, -3.0))), "line")
    assert all(0 <= y <= 300 for _, y in line)


def test_single_point() -> None:
    assert len(points(drawn(Line("x", (0.0,), (0.5,))), "line")) == 1

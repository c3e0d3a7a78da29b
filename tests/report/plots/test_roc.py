"""Logarithmic axes, the diagonal, and marks that are the measured numbers."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from vambrace.report.plots.roc import Mark, log_roc


def drawn(fpr: list[float], tpr: list[float], *marks: Mark, measured_from: float = 0.0) -> ET.Element:
    return ET.fromstring(log_roc(fpr, tpr, key="r", marks=marks, measured_from=measured_from))


def points(tree: ET.Element, kind: str) -> list[tuple[float, float]]:
    (d,) = [node.get("d", "") for node in tree.iter("path") if (node.get("class") or "").split()[0] == kind]
    return [(float(x), float(y)) for x, y in re.findall(r"([\d.]+),([\d.]+)", d)]


def test_decades_are_equally_wide() -> None:
    tree = drawn([0.001, 0.01, 0.1, 1.0], [0.001, 0.01, 0.1, 1.0])
    line = points(tree, "line")
    steps = [b[0] - a[0] for a, b in zip(line[::2], line[2::2], strict=False)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.02)
    chance = points(tree, "chance")
    assert line[0] == pytest.approx(chance[0], abs=0.02)
    assert line[-1] == pytest.approx(chance[-1], abs=0.02)


def test_guessing_lies_on_the_diagonal_and_better_above() -> None:
    good = points(drawn([0.01, 0.1, 1.0], [0.1, 0.5, 1.0]), "line")
    guess = points(drawn([0.01, 0.1, 1.0], [0.01, 0.1, 1.0]), "line")
    assert good[0][1] < guess[0][1]
    assert good[-1] == guess[-1]


def test_zeros_stay_on_the_picture() -> None:
    line = points(drawn([0.0, 0.0, 0.002, 1.0], [0.0, 0.01, 0.05, 1.0]), "line")
    assert all(0 <= x <= 440 and 0 <= y <= 350 for x, y in line)


def test_marks_are_the_numbers_given() -> None:
    tree = drawn([0.001, 0.1, 1.0], [0.001, 0.1, 1.0], Mark(0.1, 0.1451, 0.12, 0.18), Mark(0.01, 0.0225))
    labels = [node.text for node in tree.iter("text") if (node.get("class") or "").startswith("name")]
    assert labels == ["14.5 %", "2.2 %"]
    assert "14.5 % (12.0 % to 18.0 %) of the members at 10 % false alarms" in "".join(tree.itertext())
    assert "2.2 % of the members at 1 % false alarms" in "".join(tree.itertext())
    plain = drawn([0.001, 0.1, 1.0], [0.001, 0.1, 1.0])
    assert len(list(tree.iter("path"))) == len(list(plain.iter("path"))) + 3, "a bar with two ends"


def test_it_is_a_staircase() -> None:
    line = points(drawn([0.01, 0.1, 1.0], [0.1, 0.5, 1.0]), "line")
    for one, other in zip(line, line[1:], strict=False):
        assert one[0] == other[0] or one[1] == other[1]
    assert line[1] == (line[2][0], line[0][1]), "it waits for the next false alarm, and then steps"


def test_what_too_few_samples_carry_is_dotted() -> None:
    tree = drawn([0.001, 0.01, 0.1, 1.0], [0.2, 0.3, 0.5, 1.0], measured_from=0.05)
    looks = {node.get("class"): node.get("d", "") for node in tree.iter("path")}
    assert {"line ghost", "line c1"} <= looks.keys()
    ghost, sound = (
        [tuple(map(float, pair)) for pair in re.findall(r"([\d.]+),([\d.]+)", looks[name])]
        for name in ("line ghost", "line c1")
    )
    assert ghost[-1] == sound[0], "they meet"
    assert max(x for x, _ in ghost) == min(x for x, _ in sound)
    assert "below 5 %, too few non-members" in "".join(tree.itertext())
    whole = drawn([0.1, 1.0], [0.5, 1.0], measured_from=0.05)
    assert "line ghost" not in {node.get("class") for node in whole.iter("path")}


def test_no_words_stand_where_lines_run() -> None:
    """An interval, a guide or the staircase would go through them."""
    tree = drawn([0.001, 0.01, 0.1, 1.0], [0.2, 0.3, 0.5, 1.0], Mark(0.01, 0.02, 0.001, 0.03), measured_from=0.005)
    (left, bottom), (right, top) = points(tree, "chance")
    said = {node.text: (float(node.get("x", "0")), float(node.get("y", "0"))) for node in tree.iter("text")}
    assert {"false alarms", "dashed: guessing", "dotted: below 0.5 %, too few non-members"} <= said.keys()
    assert not [text for text, (x, y) in said.items() if left < x <= right and top < y < bottom + 12]
    rows = sorted(y for x, y in said.values() if y > bottom + 12)
    assert rows[-1] <= float(tree.get("viewBox", "").split()[3]) - 4


def test_nothing_is_marked_that_was_not_measured() -> None:
    tree = drawn([0.001, 0.1, 1.0], [0.001, 0.1, 1.0])
    assert not list(tree.iter("circle"))
    assert "not measured" in "".join(tree.itertext())


def test_very_small_rates_do_not_make_the_picture_endless() -> None:
    tree = drawn([1e-12, 1.0], [1e-12, 1.0])
    assert len([node for node in tree.iter("line") if node.get("class") == "grid"]) == 2 * 6

"""WCAG contrast of every pair of colours that stand on each other, in both themes."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from vambrace.report.palette import DARK, HEAT_STEPS, LIGHT, PAIRS, contrast, variables

THEMES = {"light": LIGHT, "dark": DARK}


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize(("front", "back", "least"), PAIRS)
def test_contrast(theme: str, front: str, back: str, least: float) -> None:
    colours = THEMES[theme]
    assert contrast(colours[front], colours[back]) >= least


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("#000000", "#ffffff", 21.0),
        ("#777777", "#ffffff", 4.48),
        ("#767676", "#ffffff", 4.54),
        ("#ff0000", "#ffffff", 4.0),
    ],
)
def test_contrast_of_known_pairs(one: str, other: str, expected: float) -> None:
    """Values that WebAIM's checker gives."""
    assert contrast(one, other) == pytest.approx(expected, abs=0.005)
    assert contrast(other, one) == contrast(one, other)


@pytest.mark.parametrize("theme", THEMES)
def test_heat_steps_are_ordered_and_apart(theme: str) -> None:
    """Neighbours differ enough to be seen, and all in one direction, so that the order survives without hue."""
    colours = THEMES[theme]
    page = [contrast(colours[f"heat-{step}"], colours["card"]) for step in range(HEAT_STEPS + 1)]
    assert page == sorted(page)
    steps = [contrast(colours[f"heat-{s}"], colours[f"heat-{s + 1}"]) for s in range(HEAT_STEPS)]
    assert min(steps) > 1.05


def test_themes_have_the_same_roles() -> None:
    assert LIGHT.keys() == DARK.keys()
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in (*LIGHT.values(), *DARK.values()))


def test_style_sheet_uses_roles_that_exist_and_no_colour_of_its_own() -> None:
    rules = resources.files("vambrace.report").joinpath("templates/report.css").read_text(encoding="utf-8")
    used = set(re.findall(r"var\(--([a-z0-9-]+)\)", rules))
    assert used == LIGHT.keys()
    assert re.findall(r"#[0-9a-fA-F]{3,8}\b", rules) == ["#fff"]  # paper is white


def test_variables() -> None:
    assert variables({"ink": "#000000", "page": "#ffffff"}) == "--ink:#000000;--page:#ffffff;"

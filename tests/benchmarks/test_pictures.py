"""The pictures of docs/attacks are what the JSON says, stand alone, and show what the pages say of them."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "docs" / "pictures").glob("*.svg"))
RESULT: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / "pictures.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def benchmarks() -> Iterator[dict[str, ModuleType]]:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        yield {name: importlib.import_module(name) for name in ("plates", "drawing")}
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def test_pictures_are_what_the_json_says(benchmarks: dict[str, ModuleType]) -> None:
    drawn = benchmarks["plates"].drawn(RESULT)
    assert {file.name: file.read_text(encoding="utf-8") for file in FILES} == drawn, (
        "run python benchmarks/pictures.py --draw"
    )


def test_another_measurement_is_another_picture(benchmarks: dict[str, ModuleType]) -> None:
    changed = json.loads(json.dumps(RESULT))
    changed["transfer"]["direct"] = 0.123
    assert benchmarks["plates"].drawn(changed)["transfer.svg"] != benchmarks["plates"].drawn(RESULT)["transfer.svg"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_pictures_stand_alone(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(text.encode()) < 60_000
    root = ElementTree.fromstring(text)
    kinds = {element.tag.removeprefix("{http://www.w3.org/2000/svg}") for element in root.iter()}
    assert kinds <= {"svg", "title", "desc", "style", "rect", "g", "path", "text", "line", "circle"}
    assert not [name for element in root.iter() for name in element.attrib if name.endswith("href")]
    assert not [word for word in ("url(", "@import", "@font-face") if word in text]
    left, top, width, height = map(float, root.attrib["viewBox"].split())
    for each in root.iter("{http://www.w3.org/2000/svg}text"):
        assert left < float(each.attrib["x"]) < width
        assert top < float(each.attrib["y"]) < height


def test_equal_neighbours_are_one_rectangle_and_others_are_not(benchmarks: dict[str, ModuleType]) -> None:
    drawn = str(benchmarks["drawing"].image([[0.0, 0.0], [1.0, 0.0]], 0, 0, 2))
    assert 'd="M0 0h2v1h-2zM1 1h1v1h-1z" fill="#000000"' in drawn
    assert 'd="M0 1h1v1h-1z" fill="#ffffff"' in drawn


def test_a_log_axis_puts_the_geometric_mean_in_the_middle(benchmarks: dict[str, ModuleType]) -> None:
    frame = benchmarks["drawing"].Frame(left=0, right=100, top=0, bottom=50, x=(10, 1000), y=(0, 1))
    assert frame.place(100, 0.5) == pytest.approx((50, 25))


def test_what_the_pages_say_about_them() -> None:
    gradient, transfer, nearest = RESULT["gradient"], RESULT["transfer"], RESULT["nearest"]
    assert gradient["left"]["APGD"] <= gradient["left"]["PGD"] < gradient["left"]["FGSM"]
    won = [{name for name, point in row["found"].items() if point["won"]} for row in gradient["rows"]]
    assert {"FGSM"} in won  # "no attack contains another"
    rows = transfer["rows"]
    assert all(three > one for one, three in rows.values())
    assert all(shares[1] < transfer["direct"] for shares in rows.values())
    assert rows["DI"][1] < rows["BIM"][1]
    assert rows["MDI"][1] < rows["MI"][1]
    plain = [shares for name, shares in rows.items() if name not in ("DI", "MDI")]
    gained = min(three - one for one, three in plain)
    assert all(max(column) - min(column) < gained for column in zip(*plain, strict=True))
    assert all(row["found"]["l0"]["distance"] <= 5 for row in nearest["rows"])
    for panel in RESULT["black-box"]["panels"].values():
        assert all(line[-1] < line[0] for line in panel["lines"].values())
    l2, linf = (RESULT["black-box"]["panels"][norm] for norm in ("l2", "linf"))
    assert all(line[-1] > l2["gradients"]["median"] for line in l2["lines"].values())
    assert all(ray < jump for ray, jump in zip(linf["lines"]["RayS"], linf["lines"]["HopSkipJump"], strict=True))
    ensembles = RESULT["ensembles"]
    last = ensembles["adaptive"][-1]
    assert last["rows"] * 10 < ensembles["standard"]["rows"]
    assert (last["left"] - ensembles["standard"]["left"]) * ensembles["digits"] < 1.5  # at most one digit apart
    assert last["rows"] < last["budget"]
    helpers = RESULT["helpers"]
    rounded, noisy = helpers["rounded"], helpers["noisy"]
    assert rounded["none"] < 0.02
    assert abs(rounded["BPDA"] - rounded["Square"]) < 0.02
    assert rounded["BPDA"] > 0.3
    (claimed, held), (less, more) = noisy["none"], noisy["Expectation"]
    assert held < claimed / 2
    assert less < claimed
    assert more > held

"""The bar of branch coverage is one: a shortfall is seen, wherever it is."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from branches import AREAS, main, shortfalls

ROOT = Path(__file__).resolve().parents[1]


def measured(changed: dict[str, Any] | None = None) -> dict[str, Any]:
    """A report in which every file of every area has 40 branches, 36 of them taken, except as `changed` says."""
    source = ROOT / "src" / "vambrace"
    paths = sorted({path for patterns in AREAS.values() for pattern in patterns for path in source.glob(pattern)})
    usual = {"covered_branches": 36, "num_branches": 40, "percent_covered": 90.0}
    return {
        path.relative_to(ROOT).as_posix(): {"summary": {**usual, **(changed or {}).get(path.name, {})}}
        for path in paths
    }


def test_every_area_is_there() -> None:
    lines, short = shortfalls(measured())
    assert [line.split()[0] for line in lines] == ["loader", "journal", "gates", "search"]
    assert short == []


@pytest.mark.parametrize("name", ["loop.py", "journal.py", "gates.py", "safetensors.py", "npy.py"])
def test_one_branch_less_is_too_few(name: str) -> None:
    _, short = shortfalls(measured({name: {"covered_branches": 35}}))
    assert len(short) == 1
    assert "of its branches; the bar is 90 %" in short[0]


def test_a_file_cannot_hide_behind_the_others() -> None:
    _, short = shortfalls(measured({"outcome.py": {"percent_covered": 89.9}}))
    assert short == ["search: src/vambrace/search/outcome.py at 89.9 %; the bar is 90 %"]


def test_a_file_that_was_renamed_is_missed() -> None:
    files = {path: each for path, each in measured().items() if not path.endswith("journal.py")}
    assert shortfalls(files)[1] == ["journal: nothing was measured that matches assess/journal.py"]
    assert len(shortfalls({})[1]) == sum(len(patterns) for patterns in AREAS.values()) + len(AREAS)


def test_the_exit_code_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "coverage.json"
    report.write_text(json.dumps({"files": measured()}))
    assert main(str(report)) == 0
    report.write_text(json.dumps({"files": measured({"loop.py": {"covered_branches": 0}})}))
    assert main(str(report)) == 1
    assert "search: " in capsys.readouterr().out.splitlines()[-1]


def test_make_coverage_asks() -> None:
    """Both lines of the recipe, so that the report is the one that was just measured."""
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\ncoverage:")[2].partition("\n\n")[0]
    assert fnmatchcase(recipe, "*pytest*--cov *--cov-report=json:build/coverage.json*")
    assert recipe.rstrip().endswith("tests/branches.py build/coverage.json")

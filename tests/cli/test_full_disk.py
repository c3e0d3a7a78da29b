"""What the terminal says after a disk that was full: only files that are there, only commands that can work."""

from __future__ import annotations

import errno
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from assess.assess_harness import Counting, Failing
from assess.toy import install, toy_plan
from vambrace import assess
from vambrace.assess.report import Report
from vambrace.cli import demo
from vambrace.cli.assessing import show
from vambrace.cli.main import main
from vambrace.core import files


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("toy")
    with install(folder):
        yield folder


def run_with(system: files.System, base: Path, out: Path) -> Report:
    before, files.system = files.system, system
    try:
        return assess.execute(toy_plan(base, run={"out": str(out)}), name="run")
    finally:
        files.system = before


@pytest.fixture(scope="module")
def calls(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The calls of a whole run."""
    run_with(counting := Counting(), base, tmp_path_factory.mktemp("whole"))
    return counting.calls


def pointers(said: str) -> dict[str, str]:
    words = ("report", "results", "replay", "continue")
    return {line.split()[0]: line for line in said.splitlines() if line.split()[:1] and line.split()[0] in words}


@pytest.mark.parametrize("name", ["", "results.json", "timings.json", "report.html", "junit.xml"])
def test_what_is_named_is_there(
    name: str, base: Path, tmp_path: Path, calls: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    at = calls.index(f"replace {name}") + 1 if name else 0
    report = run_with(Failing(at, errno.ENOSPC) if at else files.System(), base, tmp_path)
    show(report)
    found = pointers(capsys.readouterr().err)
    expected = {
        "": {"report"},
        "results.json": {"continue"},
        "timings.json": {"results", "report", "continue"},
        "report.html": {"results", "report", "continue"},
        "junit.xml": {"report", "continue"},
    }[name]
    assert set(found) - {"replay"} == expected
    assert "replay" not in found or (report.path / "results.json").is_file()
    for word in expected - {"continue"}:
        what = shlex.split(found[word].partition("  (")[0])[1:]
        if what[0] == "vambrace":
            assert word == "report"
            assert main(what[1:]) == 0
            assert (report.path / "report.html").is_file()
        else:
            assert Path(*what).is_file()
    if "continue" in found:
        resumed = assess.resume(Path(shlex.split(found["continue"])[-1]))
        show(resumed)
        assert "report" in pointers(capsys.readouterr().err)


@pytest.mark.parametrize("there", [True, False])
def test_the_demo_points_at_no_page_that_is_not_there(
    there: bool, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import dataclasses

    from vambrace.assess import demo as demonstration

    report = run_with(files.System(), base, tmp_path)
    kept = tuple(path for path in report.written if there or path.name != "report.html")
    report = dataclasses.replace(report, written=kept, exit_code=1)
    monkeypatch.setattr(demonstration, "demonstrate", lambda *_, **__: report)
    demo.demo(tmp_path)
    assert ("Look at" in capsys.readouterr().err) is there

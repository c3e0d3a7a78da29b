"""Reports and judgement again, from files alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from vambrace import assess, data, models
from vambrace.assess.plan import GateSpec, RunSpec
from vambrace.assess.report import Report
from vambrace.assess.reporting import rejudge, rewrite
from vambrace.errors import ConfigError, ResourceError
from vambrace.testing.digits import train


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Report:
    part = data.load("digits:train", limit=300)
    batch = part.read(range(len(part)))
    return assess.run(
        models.from_torch(train(batch.inputs, batch.labels, epochs=8)),
        data.load("digits:test", limit=60),
        profile="smoke",
        gates=[GateSpec(metric="clean.accuracy", min=0.2)],
        options=RunSpec(images=2, threads=1),
        out=tmp_path_factory.mktemp("runs"),
    )


@pytest.fixture
def run(finished: Report, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished.path, tmp_path / finished.path.parent.name / finished.path.name))


def plan(folder: Path, *gates: str) -> Path:
    path = folder / "gates.toml"
    path.write_text("\n".join(["schema = 1", *gates]))
    return path


def test_reports_come_back_byte_for_byte(run: Path) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    for name in ("report.html", "junit.xml"):
        (run / name).unlink()
    written = rewrite(run, ["html", "json", "junit"])
    assert [path.name for path in written] == ["report.html", "results.json", "junit.xml"]
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def test_images_are_as_many_as_asked(run: Path) -> None:
    sizes = {}
    for images in (0, "none", 1, "all", "blur"):
        [path] = rewrite(run, ["html"], images=images)  # type: ignore[arg-type]
        sizes[images] = path.read_text(encoding="utf-8").count("data:image/")
    assert sizes[0] == sizes["none"] == 0
    assert 0 < sizes[1] < sizes["all"]


@pytest.mark.parametrize("content", [None, "no JSON", "[]", '{"phases": 3}'])
def test_files_that_only_decorate_may_be_gone(content: str | None, run: Path) -> None:
    for name in ("timings.json", "environment.json"):
        (run / name).unlink()
        if content is not None:
            (run / name).write_text(content)
    assert rewrite(run, ["html", "junit"])


def test_what_cannot_be_read_or_written(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="E577.*is not there"):
        rewrite(tmp_path / "nowhere", ["html"])
    with pytest.raises(ConfigError, match="E577.*has no results.json.*--resume"):
        rejudge(tmp_path)
    with pytest.raises(ConfigError, match="E553"):
        rewrite(run, ["pdf"])  # type: ignore[list-item]
    (run / "report.html").unlink()
    (run / "report.html").mkdir()
    with pytest.raises(ResourceError, match="E601"):
        rewrite(run, ["html"])
    (run / "results.json").write_text("{}")
    with pytest.raises(ConfigError, match="E55"):
        rejudge(run)


def test_judging_writes_nothing(run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    rejudge(run, baseline=run, plan=plan(run.parent, "[[gate]]", 'metric = "clean.loss"', "max = 0.0"))
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("gates", "code", "word"),
    [
        ([], 0, "PASS"),
        (["[[gate]]", 'metric = "clean.accuracy"', "min = 0.999"], 1, "FAIL"),
        (["[[gate]]", 'metric = "clean.accuracy"', "min = 0.01"], 0, "PASS"),
        (["[[gate]]", 'metric = "nothing.at_all"', "min = 0.01"], 4, "INCOMPLETE"),
        (['gates = "none"'], 0, "MEASURED, NOT JUDGED"),
    ],
)
def test_gates_of_a_plan_stand_in_place_of_the_runs_own(gates: list[str], code: int, word: str, run: Path) -> None:
    found = rejudge(run, plan=plan(run.parent, *gates))
    assert (found.verdict.exit_code, found.verdict.word) == (code, word)
    own = rejudge(run)
    assert (own.verdict.exit_code, own.verdict.word) == (0, "PASS")
    assert [each.gate for each in own.gates] == ["preflight.ok >= 1", "clean.accuracy ci_low >= 0.2"]


def test_a_plan_may_hold_more_than_gates_and_its_mistakes_are_found(run: Path) -> None:
    path = plan(run.parent, 'model = { source = "gone.onnx" }', "[[gate]]", 'metric = "clean.accuracy"', "min = 0.999")
    assert rejudge(run, plan=path).verdict.exit_code == 1
    with pytest.raises(ConfigError, match="E16"):
        rejudge(run, plan=plan(run.parent, "[[gate]]", 'metric = "clean.accuracy"', "minimum = 0.9"))
    with pytest.raises(ConfigError, match="E160"):
        rejudge(run, plan=run / "nowhere.toml")

"""Rehearsals say what would run, and write nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from assess.toy import install, toy_plan
from vambrace import assess, data
from vambrace.core import canonical
from vambrace.errors import ConfigError
from vambrace.models import from_torch


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("toy")
    with install(folder):
        yield folder


def test_it_says_what_a_run_does(base: Path, tmp_path: Path) -> None:
    plan = toy_plan(base, run={"out": str(tmp_path / "runs")})
    before = set(base.iterdir())
    found = assess.rehearse(plan)
    report = assess.execute(plan)
    assert not set(base.iterdir()) - {*before, base / "__pycache__"}
    assert found.plan is plan
    assert found.exit_code == 0
    checks = [check["id"] for check in report.results.plan["checks"]]
    assert list(found.samples) == list(found.units) == list(found.seconds) == checks
    assert found.samples["two"] == 35
    assert found.units["two"] == 2
    assert sum(found.units.values()) == len(report.timings["units"])
    assert all(seconds > 0 for seconds in found.seconds.values())


def test_nothing_is_written(base: Path, tmp_path: Path) -> None:
    assess.rehearse(toy_plan(base, run={"out": str(tmp_path / "runs")}))
    assert not list(tmp_path.iterdir())


def test_lines_and_notes_for_people(base: Path) -> None:
    found = assess.rehearse(toy_plan(base))
    text = "\n".join(found.lines())
    for word in (
        "toy_net",
        "1x8x8",
        "10 outputs",
        "60 samples in 10 classes",
        "0 to 9, in this order",
        "batch 10, at most 20 samples a unit",
        "up to",
    ):
        assert word in text
    assert all(len(line) < 400 for line in found.lines())
    assert {"model", "contract", "data.eval", "run"} <= found.notes().keys()
    stored = found.as_json()
    assert canonical.loads(canonical.dumps(stored)).keys() == stored.keys()
    assert [check["id"] for check in stored["checks"]] == ["clean", "one", "two", "three"]


def test_remarks_on_data_stand_with_the_data(base: Path) -> None:
    """Whoever brings data in memory may call its role like another place of a plan file."""
    found = assess.rehearse(toy_plan(base))
    seen = found.facts["data"]["eval"]
    named = dataclasses.replace(
        found,
        facts={**found.facts, "data": {"eval": seen, "contract": seen}},
        remarks={"model": ("not signed",), "eval": ("gaps",), "contract": ("other gaps",)},
    ).notes()
    assert named["model"].endswith("\nnot signed")
    assert named["data.eval"].endswith("\ngaps")
    assert named["data.contract"].endswith("\nother gaps")
    assert "gaps" not in named["contract"]


def test_a_model_that_answers_at_random_is_unreliable() -> None:
    class Random(torch.nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return torch.rand(len(inputs), 10) + 0 * inputs.flatten(1)[:, :1]

    plan = toy_plan(Path())
    found = assess.rehearse(
        assess.Plan(
            profile="smoke",
            seed=0,
            model=plan.model,
            contract=plan.contract,
            data=plan.data,
            trust=plan.trust,
            run=assess.RunSpec(),
            checks=(),
            gates=(),
        ),
        model=from_torch(Random().eval()),
        batches={"eval": data.load("digits:test", limit=40)},
    )
    assert found.exit_code == 5
    assert any("unreliable" in line for line in found.lines())


def test_only(base: Path) -> None:
    found = assess.rehearse(toy_plan(base), only=("one",))
    assert list(found.samples) == ["clean", "one"]
    assert any("--only" in left.reason for left in found.left_out)
    with pytest.raises(ConfigError, match="E170"):
        assess.rehearse(toy_plan(base), only=("nothing",))


def test_a_run_announces_what_its_rehearsal_says(base: Path, tmp_path: Path) -> None:
    plan = toy_plan(base, run={"out": str(tmp_path / "runs")})
    heard: list[assess.Rehearsal] = []

    def hear(rehearsal: assess.Rehearsal) -> None:
        assert not (tmp_path / "runs").exists()
        heard.append(rehearsal)

    assess.execute(plan, announce=hear)
    [told] = heard
    foreseen = assess.rehearse(plan)
    assert told.subject() == foreseen.subject()
    assert told.samples == foreseen.samples
    assert told.units == foreseen.units


def test_a_resumed_run_may_take_other_time_and_workers(base: Path, tmp_path: Path) -> None:
    plan = toy_plan(base, run={"out": str(tmp_path / "runs")})
    whole = assess.execute(plan)
    cut = assess.execute(dataclasses.replace(plan, run=dataclasses.replace(plan.run, budget=1e-9)))
    assert cut.exit_code == 4
    again = assess.resume(cut.path)
    assert again.exit_code == 4  # the same budget once more
    done = assess.resume(cut.path, budget=600.0, workers=2)
    assert done.exit_code == whole.exit_code
    assert (done.path / "results.json").read_bytes() == (whole.path / "results.json").read_bytes()


def test_what_is_odd_about_the_data_is_said_and_kept(base: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    for name in ("3", "4", "7"):
        (pictures / name).mkdir(parents=True)
    for at in range(150):
        Image.new("L", (8, 8), at).save(pictures / ("3" if at % 2 else "4") / f"{at}.png")
    (pictures / "3" / "broken.png").write_bytes(b"no image")
    (pictures / "notes.txt").write_text("hello")
    plan = toy_plan(base, run={"out": str(tmp_path / "runs")})
    found = assess.rehearse(dataclasses.replace(plan, data={"eval": assess.DataSpec(source=str(pictures))}))
    remarks = "\n".join(found.remarks["eval"])
    for words in ("numbers with gaps", "no images of", "left out as unusable: 3/broken.png", "passed over: 1"):
        assert words in remarks
        assert words in "\n".join(found.lines())
    assert "numbers with gaps" in found.notes()["data.eval"]
    left = {each.name: each.reason for each in found.left_out}
    assert left["1 unusable file in eval"].startswith("3/broken.png: ")
    assert "numbers with gaps" in " ".join(each.reason for each in found.left_out if each.name == "eval data")
    assert f"{found.right} of {found.probed} probed samples are right" in "\n".join(found.lines())

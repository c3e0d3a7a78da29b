"""Rehearsals say what would run, and write nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

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
        "0 0, 1 1",
        "batch 10, chunk 20",
        "about",
    ):
        assert word in text
    assert all(len(line) < 400 for line in found.lines())
    assert {"model", "contract", "data.eval", "run"} <= found.notes().keys()
    stored = found.as_json()
    assert canonical.loads(canonical.dumps(stored)).keys() == stored.keys()
    assert [check["id"] for check in stored["checks"]] == ["clean", "one", "two", "three"]


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

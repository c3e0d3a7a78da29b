"""The demo: its plan touches every family that exists, and the whole of it ends well."""

from __future__ import annotations

from pathlib import Path

import pytest

from vambrace.assess import demo
from vambrace.assess.demo import FACTORY, PLAN, WEIGHTS, demo_table, demonstrate
from vambrace.assess.plan import Plan
from vambrace.assess.reading import parse_plan, read_plan
from vambrace.cli.main import main
from vambrace.core import registry
from vambrace.core.access import Access
from vambrace.errors import ConfigError


@pytest.fixture(scope="module")
def plan() -> Plan:
    return parse_plan(demo_table("weights.safetensors"), base=Path(), where="the demo")


def test_it_touches_every_family(plan: Plan) -> None:
    """Every kind of check and perturbation; of attacks one with gradients, one with scores, one with labels.

    But not "dp": the demo's network is not trained privately, and has no ledger.
    """
    kinds = {planned.check.kind for planned in plan.checks}
    methods = {getattr(planned.check, "name", "") for planned in plan.checks}
    assert kinds == set(registry.names(registry.CHECKS)) - {"dp"}
    attacks = [planned.check for planned in plan.checks if planned.check.kind == "adversarial"]
    assert {check.needs for check in attacks} == {Access.GRADIENTS, Access.SCORES, Access.LABELS}
    assert set(registry.names(registry.PERTURBATIONS)) <= methods
    norms = {planned.check.attack.norm for planned in plan.checks if planned.check.kind == "adversarial"}  # type: ignore[attr-defined]
    assert norms == {"linf", "l2"}


def test_it_assesses_what_the_network_has_not_seen(plan: Plan) -> None:
    assert plan.data["eval"].source == plan.data["nonmembers"].source == "digits:test"
    assert plan.data["members"].source == "digits:train"
    from vambrace import data

    seen, unseen = (set(data.load(source).hashes) for source in ("digits:train", "digits:test"))
    assert not seen & unseen


def test_it_is_an_assessment_like_any_other(plan: Plan) -> None:
    assert plan.gates == ()  # the profile's own decide
    assert plan.profile == "ci"
    assert plan.model.factory == FACTORY
    assert plan.trust.code == ("vambrace",)


def test_a_place_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "demo" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("years")
    with pytest.raises(ConfigError, match="E578"):
        demonstrate(tmp_path)
    assert precious.read_text() == "years"


def small(weights: str, out: str) -> dict[str, object]:
    """The demo's plan with few samples and the cheapest checks."""
    table = demo_table(weights, out)
    table["data"] = {role: {**spec, "limit": 60} for role, spec in table["data"].items()}
    table["check"] = [check for check in table["check"] if check.get("attack") != "apgd"][:2]
    return table


def test_a_small_one_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "demo_table", small)
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--out", "here"]) == 0
    first = capsys.readouterr()
    assert "Look at here/demo/report.html" in first.err
    assert "vambrace assess here/demo.toml" in first.err
    assert "the demo exits 0" in first.err
    assert first.out == ""
    assert {"demo", PLAN, WEIGHTS} <= {path.name for path in (tmp_path / "here").iterdir()}
    results = (tmp_path / "here/demo/results.json").read_bytes()
    assert main(["demo", "--out", "here"]) == 0  # an earlier demo is replaced
    capsys.readouterr()
    assert (tmp_path / "here/demo/results.json").read_bytes() == results
    assert [planned.id for planned in read_plan(tmp_path / "here" / PLAN).checks] == ["clean", "fgsm-linf"]
    assert main(["check", "here/demo.toml"]) == 0  # weights are found beside the plan


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (1, 0), (5, 0), (4, 4), (6, 6), (130, 130)])
def test_the_exit_code_is_0_when_the_run_completed(
    code: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import dataclasses

    from vambrace.cli import demo as command

    monkeypatch.setattr(demo, "demo_table", small)
    real = demonstrate(tmp_path)
    ended = dataclasses.replace(real, exit_code=code)
    monkeypatch.setattr(demo, "demonstrate", lambda *_, **__: ended)
    monkeypatch.setattr(command, "show", lambda _: None)
    assert main(["demo", "--out", str(tmp_path)]) == expected
    assert (f"would have exited with {code}" in capsys.readouterr().err) == (expected == 0)


@pytest.mark.slow
def test_the_whole_demo(tmp_path: Path) -> None:
    report = demonstrate(tmp_path)
    assert report.exit_code in {0, 1}
    families = {finding.family for finding in report.results.findings}
    assert families == {"preflight", "clean", "adversarial", "natural", "membership"}
    accuracy = next(finding.value for finding in report.results.findings if finding.name == "clean.accuracy")
    assert accuracy is not None
    assert accuracy > 0.9
    assert (report.path / "report.html").stat().st_size < 8 * 2**20

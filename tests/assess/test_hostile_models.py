"""Every hostile model through the whole main job: its diagnosis, status and exit code, and no number that flatters."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from vambrace import assess, data, models
from vambrace.assess.checks.adversarial import AdversarialCheck
from vambrace.assess.checks.clean import CleanCheck
from vambrace.assess.checks.membership import MembershipCheck
from vambrace.assess.checks.natural import NaturalCheck
from vambrace.assess.journal import parse
from vambrace.assess.plan import GateSpec, PlannedCheck, RunSpec
from vambrace.assess.preflight import SCORED
from vambrace.assess.rundir import read_run_file
from vambrace.attacks import PGD
from vambrace.core.findings import Status
from vambrace.errors import VambraceError
from vambrace.perturb import Rotate
from vambrace.testing.hostile import build

ROWS = tomllib.loads((Path(__file__).parent / "hostile_models.toml").read_text())["row"]
CHECKS = (
    PlannedCheck(id="clean", check=CleanCheck()),
    PlannedCheck(id="pgd", check=AdversarialCheck(attack=PGD(norm="linf", eps=0.1, steps=5), eps=(0.1,))),
    PlannedCheck(id="rotate", check=NaturalCheck(perturbation=Rotate(), severities=(1,))),
    PlannedCheck(id="membership", check=MembershipCheck()),
)
NO_NUMBER = {Status.UNRELIABLE, Status.ERROR, Status.NOT_MEASURED}
BATCH = 40


@pytest.fixture(scope="module")
def few():
    return data.load("digits:test", limit=60)


@pytest.fixture(scope="module")
def many():
    """More samples than preflight looks at, and the position of one that it does not."""
    source = data.load("digits:test", limit=300)
    probed = {i * 300 // SCORED for i in range(SCORED)}
    return source, next(place for place in range(150, 300) if place not in probed)


@pytest.fixture
def run(net, few, tmp_path):
    members, others = data.load("digits:train", limit=30), data.subset(data.load("digits:test"), range(300, 330))

    def run(name, batches=few, marker=None, **changes):
        module = build(name, net, marker) if name else net
        options = RunSpec(batch=BATCH, chunk=BATCH, threads=1, images=2, budget=changes.pop("budget", None))
        arguments = {"profile": "smoke", "checks": CHECKS, "members": members, "nonmembers": others, **changes}
        return assess.run(models.from_torch(module), batches, options=options, out=tmp_path, name="run", **arguments)

    return run


@pytest.fixture(scope="module")
def honest(net, few, tmp_path_factory):
    """Robust accuracy of the network that all rows are built around."""
    report = assess.run(
        models.from_torch(net), few, checks=CHECKS[:2], profile="smoke", out=tmp_path_factory.mktemp("honest")
    )
    assert report.exit_code == 0
    return finding_of(report, "pgd.robust_accuracy@0.1").value


def finding_of(report, name):
    return next(finding for finding in report.results.findings if finding.name == name)


def codes_of(report):
    return {flag.code for finding in report.results.findings for flag in finding.flags}


def only(status, where=None):
    return [row for row in ROWS if row["status"] in status and where in (None, row["where"])]


def each(rows):
    return pytest.mark.parametrize("row", rows, ids=[f"{row['number']}-{row['model']}" for row in rows])


@each(only({"refused"}))
def test_refused_before_units(row, run, tmp_path):
    with pytest.raises(VambraceError) as caught:
        run(row["model"])
    assert (caught.value.code, caught.value.exit_code) == (row["code"], row["exit"])
    assert not list(tmp_path.iterdir())
    for part in (caught.value.seen, caught.value.expected, caught.value.fix):
        assert part.strip()


@each([row for row in only({"unreliable"}) if row["model"] != "nan_on_one_sample"])
def test_unreliable(row, run, honest):
    report = run(row["model"])
    check_not_robust(report, row)
    preflight = report.results.findings[0]
    found = row["code"] in {flag.code for flag in preflight.flags if flag.level == "unreliable"}
    assert found is (row["where"] == "preflight")
    assert (preflight.status is Status.UNRELIABLE) is found
    assert (preflight.value == 0.0) is found
    robust = finding_of(report, "pgd.robust_accuracy@0.1")
    assert row["code"] in {flag.code for flag in robust.flags if flag.level == "unreliable"}
    assert robust.reason
    page = (report.path / "report.html").read_text()
    assert "PASS" not in page.partition("<body")[2][:2000]


@each(only({"warn"}))
def test_warnings_leave_it_to_the_gates(row, run, honest):
    report = run(row["model"])
    assert report.exit_code == row["exit"] == 0
    assert report.results.verdict.word == "PASS"
    assert {flag.level for flag in report.results.findings[0].flags if flag.code == row["code"]} == {"warn"}
    robust = finding_of(report, "pgd.robust_accuracy@0.1")
    assert robust.status in {Status.WARN, Status.MEASURED}
    assert robust.value <= honest + 0.05


@each(only({"warn"}))
def test_warnings_pass_nothing_that_fails(row, run):
    gates = (GateSpec(metric="preflight.ok", min=1, use="value"), GateSpec(metric="pgd.robust_accuracy@0.1", min=0.95))
    assert run(row["model"], gates=gates).exit_code == 1


def test_nan_on_one_sample_that_preflight_did_not_see(run, many):
    source, place = many
    report = run("nan_on_one_sample", source, source.read([place]).inputs)
    assert report.results.findings[0].status is Status.PASS
    check_not_robust(report, ROWS[2])
    for name in ("clean.accuracy", "pgd.robust_accuracy@0.1", "rotate.accuracy@1"):
        finding = finding_of(report, name)
        assert (finding.status, finding.n) == (Status.UNRELIABLE, 300)
        assert "1 of 300" in finding.reason
    records = records_of(report, "pgd")
    assert [record["finite"] for record in records].count(False) == 1


def test_nan_on_one_sample_that_preflight_saw(run, few):
    report = run("nan_on_one_sample", marker=few.read([37]).inputs)
    check_not_robust(report, ROWS[2])
    assert report.results.findings[0].status is Status.UNRELIABLE


@pytest.mark.parametrize("probed", [False, True])
def test_an_exception_over_one_sample_costs_its_units_only(run, many, probed):
    """Preflight may meet the sample or not: the units without it are measured, the others are errors that name E406."""
    source, place = many
    place -= probed
    row = ROWS[16]
    report = run("raises_at_one_sample", source, source.read([place]).inputs)
    assert report.exit_code == row["exit"] == 4
    assert (row["code"] in {flag.code for flag in report.results.findings[0].flags}) is probed
    assert finding_of(report, "preflight.ok").status is Status.PASS
    for name in ("clean.accuracy", "pgd.robust_accuracy@0.1", "rotate.accuracy@1"):
        finding = finding_of(report, name)
        assert (finding.status, finding.value) == (Status.ERROR, None)
        assert "E406" in finding.reason
        assert "unsupported value in sample" in finding.reason
    assert finding_of(report, "membership.auc").value is not None
    units = units_of(report, "pgd")
    assert [unit.error is None for unit in units] == [number != place // BATCH for number in range(8)]
    assert len(records_of(report, "pgd")) == 300 - BATCH
    assert next(unit.error for unit in units if unit.error)["code"] == "E406"


def test_a_sleeping_model_is_not_waited_for(run):
    report = run("sleeps", budget=0.05)
    assert report.exit_code == ROWS[24]["exit"] == 4
    assert report.results.verdict.word == "INCOMPLETE"
    robust = finding_of(report, "pgd.robust_accuracy@0.1")
    assert (robust.status, robust.value) == (Status.NOT_MEASURED, None)
    assert "budget" in robust.reason


def test_raising_off_the_grid_is_an_error(run):
    report = run("raises_off_the_grid")
    row = next(row for row in ROWS if row["model"] == "raises_off_the_grid")
    check_not_robust(report, row)
    robust = finding_of(report, "pgd.robust_accuracy@0.1")
    assert robust.status is Status.ERROR
    assert row["code"] in robust.reason


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_odd_but_honest_models_pass(run, net, few, honest, tmp_path, dtype):
    """What is unusual and right must not be called wrong, or nobody would read the flags."""
    import copy

    import torch

    module = copy.deepcopy(net).to(getattr(torch, dtype))
    report = assess.run(
        models.from_torch(module), few, checks=CHECKS[:3], profile="smoke", out=tmp_path, options=RunSpec(threads=1)
    )
    assert codes_of(report) == set()
    assert report.exit_code == 0
    assert finding_of(report, "pgd.robust_accuracy@0.1").value == pytest.approx(honest, abs=0.1)


def check_not_robust(report, row):
    """The exit code, the diagnosis, and no finding that calls the model robust or private."""
    assert report.exit_code == row["exit"]
    assert report.results.verdict.exit_code == row["exit"]
    text = json.dumps(report.results.as_json())
    assert row["code"] in codes_of(report) or row["code"] in text
    robust = [finding for finding in report.results.findings if finding.metric.startswith("robust_accuracy")]
    assert robust
    assert all(finding.status in NO_NUMBER for finding in robust)
    success = [finding for finding in report.results.findings if finding.metric.startswith("success")]
    assert all(finding.status in NO_NUMBER for finding in success)


def units_of(report, check):
    parsed = parse((report.path / "journal").read_bytes(), read_run_file(report.path).run)
    return sorted((unit for unit in parsed.units if unit.check == check), key=lambda unit: unit.chunk)


def records_of(report, check):
    return [record for unit in units_of(report, check) if unit.result for record in unit.result["records"]]

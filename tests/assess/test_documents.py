"""Checks of documents in whole runs: files are read once and exactly, changes are noticed, exit codes are honest."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from assess.assess_harness import finished_keys, only_run
from assess.toy import install, toy_plan
from vambrace import assess
from vambrace.assess.checks.clean import CleanCheck
from vambrace.assess.checks.dp import DpCheck
from vambrace.assess.documents import LARGEST, documents_digest, read_documents
from vambrace.assess.fit import Subject
from vambrace.assess.opening import open_data, open_model
from vambrace.assess.plan import GateSpec, Plan, PlannedCheck
from vambrace.assess.presets import select
from vambrace.assess.reading import parse_plan
from vambrace.assess.worker import Worker
from vambrace.assess.writing import write_commented_toml
from vambrace.core.access import Access
from vambrace.core.dialect import parse_toml
from vambrace.core.findings import Finding, Status
from vambrace.errors import ConfigError, MissingExtra
from vambrace.privacy.dp.audited import Audited
from vambrace.privacy.dp.charges import Charge, Spent
from vambrace.privacy.dp.guessing import Bound
from vambrace.privacy.dp.history import Terms
from vambrace.privacy.dp.ledger import Ledger

TERMS = Terms(dataset_size=60_000, delta=1e-5, unit="sample", relation="add_or_remove_one", sampler="poisson")
STEP = Charge(mechanism="gaussian", noise_multiplier=1.1, sampling="poisson", sample_rate=0.004)  # 1,000: about 0.7
CLEAN = GateSpec(metric="clean.accuracy", min=0.0)
AT_MOST = GateSpec(metric="dp.epsilon", max=3.0, use="value")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("toy")
    torch.set_num_threads(1)
    with install(folder):
        yield folder


@pytest.fixture
def path(base: Path) -> Iterator[Path]:
    """A ledger of 1,000 steps beside the plan."""
    found = base / "ledger"
    with Ledger.create(found, TERMS) as book:
        book.reserve(STEP, 1000)
    yield found
    for each in (found, base / "ledger.lock", base / "audit"):
        each.unlink(missing_ok=True)


def plan_of(base: Path, out: Path, *gates: GateSpec, check: DpCheck | None = None, **run: Any) -> Plan:
    checks = (
        PlannedCheck(id="clean", check=CleanCheck()),
        PlannedCheck(id="dp", check=check or DpCheck(ledger="ledger"), named=True),
    )
    return toy_plan(base, *checks, gates=(CLEAN, *gates), run={"out": str(out), **run})


def finding(report: assess.Report, name: str = "dp.epsilon") -> Finding:
    return next(each for each in report.results.findings if each.name == name)


def content(report: assess.Report) -> bytes:
    return (report.path / "results.json").read_bytes()


def more(path: Path, charge: Charge, steps: int) -> None:
    with Ledger.open(path) as book:
        book.reserve(charge, steps)


@pytest.mark.parametrize(("most", "code", "status"), [(3.0, 0, Status.PASS), (0.5, 1, Status.FAIL)])
def test_a_gate_judges_epsilon(base: Path, path: Path, tmp_path: Path, most: float, code: int, status: Status) -> None:
    report = assess.execute(plan_of(base, tmp_path, dataclasses.replace(AT_MOST, max=most)))
    assert (report.exit_code, finding(report).status) == (code, status)
    assert "beside it, the model is right on" in finding(report).sentence
    assert "dp-accounting" in report.results.versions
    assert {unit["role"] for unit in report.timings["units"]} == {"eval", "documents"}


def test_infinite_epsilon_passes_no_gate(base: Path, path: Path, tmp_path: Path) -> None:
    more(path, dataclasses.replace(STEP, private=False), 1)
    gates = (AT_MOST, GateSpec(metric="dp.*", min=0.0, use="value"), GateSpec(metric="dp.epsilon", max=1e300))
    report = assess.execute(plan_of(base, tmp_path, *gates))
    assert (report.exit_code, finding(report).status) == (4, Status.NOT_MEASURED)
    assert {gate.status for gate in report.results.gates if gate.finding.startswith("dp")} == {Status.NOT_MEASURED}


def test_a_damaged_ledger_is_an_error(base: Path, path: Path, tmp_path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"steps":1000', b'"steps":1'))
    report = assess.execute(plan_of(base, tmp_path, AT_MOST))
    assert (report.exit_code, finding(report).status, finding(report).value) == (4, Status.ERROR, None)
    assert "E585" in finding(report).reason
    assert finding(report, "clean.accuracy").status is not Status.ERROR
    other = plan_of(base, tmp_path / "optional")
    checks = (other.checks[0], dataclasses.replace(other.checks[1], required=False))
    report = assess.execute(dataclasses.replace(other, checks=checks))
    assert (report.exit_code, finding(report).status) == (0, Status.ERROR)


def test_a_contradicted_claim_is_unreliable(base: Path, path: Path, tmp_path: Path) -> None:
    bound = Bound.of(canaries=1000, guesses=200, correct=190, delta=1e-5, confidence=0.95, method="one_run")
    charge = Charge(mechanism="gaussian", noise_multiplier=4.083, sampling="poisson", sample_rate=0.25)
    Audited(bound=bound, spent=Spent([(charge, 16)])).write(base / "audit")
    report = assess.execute(plan_of(base, tmp_path, AT_MOST, check=DpCheck(ledger="ledger", audit="audit")))
    assert (report.exit_code, finding(report).status) == (5, Status.UNRELIABLE)
    assert "does not do what it charges for" in " ".join(report.results.verdict.sentences)
    assert finding(report, "dp.audit_epsilon").value == bound.epsilon


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_one_result_whoever_runs_the_units_and_wherever_the_files_lie(
    base: Path, path: Path, tmp_path: Path, workers: int
) -> None:
    one = assess.execute(plan_of(base, tmp_path / "a", AT_MOST))
    other = assess.execute(plan_of(base, tmp_path / "b", AT_MOST, check=DpCheck(ledger=str(path)), workers=workers))
    assert one.exit_code == other.exit_code == 0
    assert content(one) == content(other)
    assert str(base) not in content(other).decode()


def test_resuming_measures_a_ledger_that_has_grown_and_nothing_else(base: Path, path: Path, tmp_path: Path) -> None:
    first = assess.execute(plan_of(base, tmp_path, AT_MOST))
    again = assess.resume(first.path)
    assert content(again) == content(first)
    assert set(finished_keys(first.path).values()) == {1}
    more(path, STEP, 100_000)
    grown = assess.resume(first.path)
    assert (grown.exit_code, finding(grown).n) == (1, 101_000)
    assert len(finished_keys(first.path)) == len(again.timings["units"]) + 1
    assert finding(grown, "clean.accuracy") == finding(first, "clean.accuracy")


def test_a_file_that_changes_during_the_run_is_noticed(base: Path, path: Path, tmp_path: Path) -> None:
    plan = plan_of(base, tmp_path)
    worker = Worker(plan, open_model(plan), open_data(plan), evidence=tmp_path)
    unit = {"check": 1, "role": "documents", "positions": [0]}
    digest = documents_digest(read_documents(plan.checks[1].check, base))
    assert worker.run({**unit, "samples": digest})["error"] is None
    more(path, STEP, 1)
    error = worker.run({**unit, "samples": digest})["error"]
    assert (error["type"], error["code"]) == ("DataRefused", "E504")


def refused(base: Path, out: Path, check: DpCheck | None = None) -> str:
    with pytest.raises(ConfigError, match="E174") as error:
        assess.execute(plan_of(base, out, check=check))
    assert error.value.exit_code == 2
    assert only_run(out) is None
    return error.value.seen


def test_what_cannot_be_read_ends_the_run_before_it_begins(base: Path, path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "No such file" in refused(base, out, DpCheck(ledger="nowhere"))
    assert "no regular file" in refused(base, out, DpCheck(ledger="."))
    assert "dp.audit = " in refused(base, out, DpCheck(ledger="ledger", audit="nowhere"))
    assert "null" in refused(base, out, DpCheck(ledger="led\0ger"))
    path.unlink()
    os.mkfifo(path)
    assert "no regular file" in refused(base, out)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "no regular file" in refused(base, out)
    path.unlink()
    path.symlink_to(base / "gone")
    assert "No such file" in refused(base, out)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(LARGEST + 1)
    assert "larger" in refused(base, out)


def test_a_link_to_a_ledger_is_followed(base: Path, path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    report = assess.execute(plan_of(base, tmp_path / "out", AT_MOST, check=DpCheck(ledger=str(tmp_path / "link"))))
    assert report.exit_code == 0


def test_without_dp_accounting_nothing_begins(
    base: Path, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = importlib.metadata.version

    def version(package: str) -> str:
        if package == "dp-accounting":
            raise importlib.metadata.PackageNotFoundError(package)
        return true(package)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(MissingExtra, match="E112"):
        assess.execute(plan_of(base, tmp_path))
    assert only_run(tmp_path) is None


def test_a_rehearsal_counts_no_samples_for_it(base: Path, path: Path, tmp_path: Path) -> None:
    rehearsed = assess.rehearse(plan_of(base, tmp_path))
    assert (rehearsed.samples["dp"], rehearsed.units["dp"]) == (0, 1)
    assert rehearsed.samples["clean"] == 60


def test_no_profile_adds_it() -> None:
    subject = Subject(
        access=Access.GRADIENTS,
        roles=("eval", "members", "nonmembers"),
        input_shape=(1, 8, 8),
        span=1.0,
        num_classes=10,
    )
    for profile in ("smoke", "ci", "full"):
        assert "dp" not in {planned.check.kind for planned in select(profile, subject).checks}


def test_a_plan_names_it(base: Path) -> None:
    table = {"check": "dp", "ledger": "runs/ledger", "audit": "audit.json", "delta": "1/100000", "accountant": "rdp"}
    plan = parse_plan(
        {"model": {"source": "net.onnx"}, "data": {"eval": {"source": "val/"}}, "check": [table]}, base=base, where="p"
    )
    assert plan.checks[0].id == "dp"
    assert plan.checks[0].check == DpCheck(ledger="runs/ledger", audit="audit.json", delta=1e-5, accountant="rdp")
    again = parse_plan(parse_toml(write_commented_toml(plan), where="p"), base=base, where="p")
    assert again == plan


@pytest.mark.parametrize(
    ("table", "code"),
    [
        ({}, "E167"),
        ({"ledger": 3}, "E166"),
        ({"ledger": "l", "epsilon": 3}, "E165"),
        ({"ledger": "l", "accountant": "gdp"}, "E166"),
        ({"ledger": "l", "delta": 0}, "E144"),
    ],
)
def test_what_a_plan_says_wrongly_is_refused(base: Path, table: dict[str, Any], code: str) -> None:
    with pytest.raises(ConfigError, match=code):
        parse_plan({"check": [{"check": "dp", **table}]}, base=base, where="p")

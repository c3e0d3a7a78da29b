"""Whole assessments with toy checks: one result whoever runs the units, and an honest end whatever happens."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from assess.assess_harness import finished_keys, in_fork, only_run
from assess.toy import ToyCheck, install, toy_plan
from vambrace import assess
from vambrace.assess.plan import DataSpec, GateSpec, PlannedCheck
from vambrace.core.findings import Status
from vambrace.core.lock import Lock
from vambrace.core.progress import Silent
from vambrace.errors import ConfigError, DataRefused, ModelRefused, ResourceError
from vambrace.report import read_results


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("toy")
    with install(folder):
        yield folder


def one(does: str = "", **options: Any) -> tuple[PlannedCheck, ...]:
    """A good check, one that misbehaves, and another good one."""
    return (
        PlannedCheck(id="one", check=ToyCheck()),
        PlannedCheck(id="odd", check=ToyCheck(scale=2.0, does=does, **options)),
        PlannedCheck(id="last", check=ToyCheck(scale=4.0)),
    )


def status(report: assess.Report, name: str) -> Status:
    return next(finding.status for finding in report.results.findings if finding.name == name)


def content(report: assess.Report) -> bytes:
    return (report.path / "results.json").read_bytes()


def test_serial_processes_and_resumed_give_the_same_bytes(base: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    serial = assess.execute(toy_plan(base, run={"out": str(tmp_path / "a")}))
    processes = assess.execute(toy_plan(base, run={"out": str(tmp_path / "b"), "workers": 2}))
    assert serial.exit_code == processes.exit_code == 0
    assert content(serial) == content(processes)
    first = content(serial)
    (serial.path / "results.json").unlink()
    assert content(assess.resume(serial.path)) == first
    assert all(count == 1 for count in finished_keys(serial.path).values())
    names = {path.name for path in serial.path.iterdir()}
    assert names == {
        "plan.json",
        "journal",
        "LOCK",
        "evidence",
        "results.json",
        "environment.json",
        "timings.json",
        "report.html",
        "junit.xml",
    }
    assert read_results(serial.path / "results.json").verdict.exit_code == 0


def test_results_know_no_place_and_no_time(base: Path, tmp_path: Path) -> None:
    report = assess.execute(toy_plan(base, run={"out": str(tmp_path)}))
    text = content(report).decode()
    for secret in (str(tmp_path), str(base), os.uname().nodename, report.path.name, str(os.getpid())):
        assert secret not in text
    timings = json.loads((report.path / "timings.json").read_bytes())
    assert timings["phases"].keys() == {"load", "preflight", "units", "findings"}
    assert timings["incidents"] == []
    assert {unit["check"] for unit in timings["units"]} == {"clean", "one", "two", "three"}


@pytest.mark.parametrize(
    ("field", "value"), [("seed", 6), ("data", {"eval": DataSpec(source="digits:test", limit=50)})]
)
def test_what_should_change_numbers_does(base: Path, tmp_path: Path, field: str, value: Any) -> None:
    first = assess.execute(toy_plan(base, run={"out": str(tmp_path / "a")}))
    other = assess.execute(toy_plan(base, run={"out": str(tmp_path / "b")}, **{field: value}))
    assert content(first) != content(other)


def test_chunks_change_no_number_but_by_rounding(base: Path, tmp_path: Path) -> None:
    values: list[list[tuple[str, Any]]] = []
    for chunk in (7, 20, 60):
        report = assess.execute(toy_plan(base, run={"out": str(tmp_path / str(chunk)), "chunk": chunk}))
        values.append([(finding.name, pytest.approx(finding.value, rel=1e-6)) for finding in report.results.findings])
    assert values[0] == [(name, value.expected) for name, value in values[1]]
    assert values[0] == [(name, value.expected) for name, value in values[2]]


# What one unit does to the run: (misbehaviour, exit code, word, what stands in the reason or verdict).
ODD = [
    ("memory", 6, "RESOURCES", "E610"),
    ("bug", 70, "ERROR", "KeyError in assess.toy"),
    ("nan", 70, "ERROR", "the number nan"),
    ("short", 70, "ERROR", "19 records for 20 samples"),
    ("exit", 4, "INCOMPLETE", "asked the process to exit"),
    ("bad reduce", 70, "ERROR", "ZeroDivisionError in assess.toy"),
    ("no finding", 4, "INCOMPLETE", "gave no finding"),
    ("infinite", 70, "ERROR", "number inf"),
    ("twice", 70, "ERROR", "second finding"),
]


@pytest.mark.parametrize(("does", "exit_code", "word", "why"), ODD, ids=[row[0] for row in ODD])
def test_one_odd_check_costs_itself_only(
    base: Path, tmp_path: Path, does: str, exit_code: int, word: str, why: str
) -> None:
    report = assess.execute(toy_plan(base, *one(does), run={"out": str(tmp_path)}))
    assert (report.exit_code, report.results.verdict.word) == (exit_code, word)
    assert status(report, "one.brightness") is Status.PASS
    assert status(report, "last.brightness") is Status.MEASURED
    odd = [finding for finding in report.results.findings if finding.check == "odd"]
    assert odd[-1].status is Status.ERROR
    assert odd[-1].value is None
    text = content(report).decode()
    assert why in text
    assert "/some/where" not in text
    assert "0x7f001122" not in text
    assert read_results(report.path / "results.json") == report.results
    assert (report.path / "report.html").exists()


def test_a_bug_leaves_its_traceback_beside_the_results(base: Path, tmp_path: Path) -> None:
    report = assess.execute(toy_plan(base, *one("bug"), run={"out": str(tmp_path)}))
    incidents = json.loads((report.path / "timings.json").read_bytes())["incidents"]
    assert "Traceback" in incidents[0]["log"]
    assert "_misbehave" in incidents[0]["log"]


SLOW_2 = [1, pytest.param(2, marks=pytest.mark.slow)]
"""Workers; starting processes costs seconds each, so only what must be seen every time is seen in the fast suite."""


@pytest.mark.parametrize("workers", SLOW_2)
def test_retry_errors_runs_only_what_failed(base: Path, tmp_path: Path, workers: int) -> None:
    mark = tmp_path / "mark"
    mark.touch()
    plan = toy_plan(base, *one("bug", mark=str(mark)), run={"out": str(tmp_path / "a"), "workers": workers})
    report = assess.execute(plan)
    assert report.exit_code == 70
    again = assess.resume(report.path)
    assert again.exit_code == 70  # errors are finished units until somebody asks
    mark.unlink()
    assert assess.resume(report.path).exit_code == 70
    mended = assess.resume(report.path, retry_errors=True)
    assert mended.exit_code == 0
    counts = finished_keys(report.path)
    assert sorted(counts.values()) == [1] * 9 + [2] * 3
    undisturbed = assess.execute(toy_plan(base, *plan.checks, run={"out": str(tmp_path / "b")}))
    assert content(mended) == content(undisturbed)


def test_a_retry_that_fails_keeps_the_old_record_and_then_the_new(base: Path, tmp_path: Path) -> None:
    report = assess.execute(toy_plan(base, *one("bug"), run={"out": str(tmp_path)}))
    first = content(report)
    assert content(assess.resume(report.path, retry_errors=True)) == first


@pytest.mark.parametrize("workers", SLOW_2)
def test_the_disk_of_a_worker_fills_up(base: Path, tmp_path: Path, workers: int) -> None:
    mark = tmp_path / "mark"
    mark.touch()
    report = assess.execute(
        toy_plan(base, *one("disk", mark=str(mark)), run={"out": str(tmp_path / "a"), "workers": workers})
    )
    assert (report.exit_code, report.results.verdict.word) == (6, "RESOURCES")
    mark.unlink()
    assert assess.resume(report.path).exit_code == 0  # no unit was to blame, so none is in error


@pytest.mark.slow
def test_a_worker_that_dies_twice_over_a_unit(base: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    mark.touch()
    checks = (
        PlannedCheck(id="one", check=ToyCheck()),
        PlannedCheck(id="odd", check=ToyCheck(scale=2.0, does="die", mark=str(mark)), limit=20),
        PlannedCheck(id="last", check=ToyCheck(scale=4.0)),
    )
    report = assess.execute(toy_plan(base, *checks, run={"out": str(tmp_path / "a"), "workers": 2}))
    assert (report.exit_code, report.results.verdict.word) == (6, "RESOURCES")
    assert status(report, "last.brightness") is Status.MEASURED
    assert "was killed by SIGKILL" in content(report).decode()
    incidents = json.loads((report.path / "timings.json").read_bytes())["incidents"]
    assert [incident["code"] for incident in incidents] == ["E611", "E611"]
    mark.unlink()
    assert assess.resume(report.path, retry_errors=True).exit_code == 0


@pytest.mark.slow
def test_workers_that_keep_dying_end_the_run(base: Path, tmp_path: Path) -> None:
    report = assess.execute(toy_plan(base, *one("die"), run={"out": str(tmp_path), "workers": 2, "chunk": 10}))
    assert (report.exit_code, report.results.verdict.word) == (6, "RESOURCES")
    assert any("E612" in sentence for sentence in report.results.verdict.sentences)


class Hurry(Silent):
    """Ends the budget after some units, whatever the clock says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
        self.patch, self.left = monkeypatch, after

    def advance(self, name: str, steps: int = 1, note: str = "") -> None:
        if name == "units":
            self.left -= steps
            if self.left <= 0:
                real = time.monotonic
                self.patch.setattr(time, "monotonic", lambda: real() + 1e6)


def test_the_budget_ends_after_the_unit_in_flight(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = assess.execute(toy_plan(base, run={"out": str(tmp_path / "a"), "budget": 600.0}))
    with monkeypatch.context() as patch:
        report = assess.execute(
            toy_plan(base, run={"out": str(tmp_path / "b"), "budget": 600.0}), progress=Hurry(patch, 5)
        )
    assert (report.exit_code, report.results.verdict.word) == (4, "INCOMPLETE")
    assert "budget of 600 s" in report.results.verdict.sentences[0]
    assert len(finished_keys(report.path)) == 5
    assert status(report, "one.brightness") is Status.NOT_MEASURED
    assert next(f for f in report.results.findings if f.name == "one.brightness").reason == "budget"
    assert read_results(report.path / "results.json") == report.results
    assert content(assess.resume(report.path)) == content(undisturbed)


def test_sigterm_finishes_the_unit_and_reports(base: Path, tmp_path: Path) -> None:
    def work() -> int:
        return assess.execute(toy_plan(base, *one("term"), run={"out": str(tmp_path)})).exit_code

    assert in_fork(work) == 4
    run = only_run(tmp_path)
    assert run
    results = read_results(run / "results.json")
    assert results.verdict.word == "INCOMPLETE"
    assert "told to stop" in results.verdict.sentences[0]
    assert len(finished_keys(run)) == 3 + 3 + 1  # clean, one, and the unit in flight
    assert (run / "report.html").exists()
    assert (run / "LOCK").read_bytes() == b""


@pytest.mark.parametrize("workers", SLOW_2)
def test_ctrl_c_gives_up_the_unit_and_reports(base: Path, tmp_path: Path, workers: int) -> None:
    def work() -> int:
        if workers == 2:
            threading.Timer(4.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        does = "int" if workers == 1 else ""
        checks = one(does, pause=3.0 if workers == 2 else 0.0)
        return assess.execute(toy_plan(base, *checks, run={"out": str(tmp_path), "workers": workers})).exit_code

    assert in_fork(work) == 130
    run = only_run(tmp_path)
    assert run
    results = read_results(run / "results.json")
    assert (results.verdict.exit_code, results.verdict.word) == (130, "INTERRUPTED")
    assert len(finished_keys(run)) == 6 or workers == 2
    assert (run / "report.html").exists()


def test_a_second_start_is_told_who_is_at_work(base: Path, tmp_path: Path) -> None:
    report = assess.execute(toy_plan(base, run={"out": str(tmp_path)}), name="mine")
    with pytest.raises(ConfigError, match="E502"):
        assess.execute(toy_plan(base, run={"out": str(tmp_path)}), name="mine")
    lock = Lock.take(report.path / "LOCK")
    for start in (
        lambda: assess.resume(report.path),
        lambda: assess.execute(toy_plan(base, run={"out": str(tmp_path)}), name="mine"),
    ):
        with pytest.raises(ResourceError, match=f"E600.*process {os.getpid()}") as caught:
            start()
        assert caught.value.exit_code == 6
    lock.release()
    assert assess.resume(report.path).exit_code == 0


def test_a_stale_lock_is_taken_over_and_reported(base: Path, tmp_path: Path) -> None:
    report = assess.execute(toy_plan(base, run={"out": str(tmp_path)}))
    (report.path / "LOCK").write_text('{"host":"elsewhere","pid":4242,"since":"2026-01-01T00:00:00Z"}')
    again = assess.resume(report.path)
    assert again.timings["incidents"][0]["code"] == "E602"
    assert "process 4242 on elsewhere" in again.timings["incidents"][0]["text"]
    assert assess.resume(report.path).timings["incidents"] == again.timings["incidents"]


def test_a_damaged_journal_reruns_what_is_gone_and_says_so(base: Path, tmp_path: Path) -> None:
    report = assess.execute(toy_plan(base, run={"out": str(tmp_path)}))
    wanted = content(report)
    journal = report.path / "journal"
    broken = bytearray(journal.read_bytes())
    places = [place for place, byte in enumerate(broken) if byte == 10]
    broken[places[2] + 100] ^= 4
    journal.write_bytes(bytes(broken[: places[-2] + 30]))
    again = assess.resume(report.path)
    assert content(again) == wanted
    assert [incident["code"] for incident in again.timings["incidents"]] == ["E507", "E508"]
    journal.unlink()
    assert content(assess.resume(report.path)) == wanted


@pytest.mark.parametrize("workers", SLOW_2)
def test_other_versions_run_everything_again(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    report = assess.execute(toy_plan(base, run={"out": str(tmp_path), "workers": workers}))
    monkeypatch.setattr("vambrace.assess.preparing.versions", lambda kind: {"torch": "9.9", "python": "3.11"})
    again = assess.resume(report.path)
    assert content(again) == content(report)
    assert len(finished_keys(report.path)) == 2 * len(again.timings["units"])
    assert again.timings["incidents"][0]["code"] == "E514"


def test_another_model_refuses_to_resume(base: Path, tmp_path: Path) -> None:
    report = assess.execute(toy_plan(base, run={"out": str(tmp_path)}))
    source = base / "toy_net.py"
    text = source.read_text()
    try:
        source.write_text(text.replace("manual_seed(3)", "manual_seed(4)"))
        with pytest.raises(ConfigError, match="E503.*weights [0-9a-f]{64}.*weights [0-9a-f]{64}") as caught:
            in_process_reload(report.path)
        assert caught.value.exit_code == 2
    finally:
        source.write_text(text)
        assert in_process_reload(report.path) == 0


def in_process_reload(path: Path) -> int:
    import sys

    sys.modules.pop("toy_net", None)
    return assess.resume(path).exit_code


def test_what_is_refused_leaves_nothing_behind(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    with pytest.raises(ModelRefused):
        assess.execute(toy_plan(base, run={"out": str(out)}, model=assess.ModelSpec(source="absent.onnx")))
    with pytest.raises(DataRefused):
        assess.execute(toy_plan(base, run={"out": str(out)}, data={"eval": DataSpec(source="absent")}))
    with pytest.raises(ConfigError, match="E550"):
        assess.execute(toy_plan(base, run={"out": str(out)}), baseline=tmp_path)
    assert not out.exists()


def test_the_baseline_is_kept_for_the_resume(base: Path, tmp_path: Path) -> None:
    before = assess.execute(toy_plan(base, run={"out": str(tmp_path / "a")}))
    gates = (GateSpec(metric="one.brightness", max_drop=0.0, use="value"),)
    report = assess.execute(toy_plan(base, gates=gates, run={"out": str(tmp_path / "b")}), baseline=before.path)
    assert [gate.status for gate in report.results.gates if gate.finding == "one.brightness"] == [Status.PASS]
    wanted = content(report)
    (before.path / "results.json").unlink()
    assert content(assess.resume(report.path)) == wanted

"""A disk that fails once, at any call: the exit code of the truth table, a message that helps, a resume that works."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from assess.assess_harness import Counting, Failing, leftovers, only_run
from assess.toy import install, toy_plan
from vambrace import assess
from vambrace.assess.plan import GateSpec, Plan
from vambrace.core import files
from vambrace.errors import ResourceError


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("toy")
    with install(folder):
        yield folder


def plan_in(base: Path, out: Path, *, failing_gate: bool) -> Plan:
    gate = GateSpec(metric="one.brightness", min=99.0 if failing_gate else 0.0, use="value")
    guess = GateSpec(metric="clean.accuracy", min=0.0)  # the toy network is no better
    return toy_plan(base, gates=(guess, gate), run={"out": str(out)})


def undisturbed(base: Path, out: Path, *, failing_gate: bool) -> tuple[bytes, list[str]]:
    before, files.system = files.system, (counting := Counting())
    try:
        report = assess.execute(plan_in(base, out, failing_gate=failing_gate), name="run")
    finally:
        files.system = before
    return (report.path / "results.json").read_bytes(), counting.calls


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, tuple[bytes, list[str]]]:
    return {
        fails: undisturbed(base, tmp_path_factory.mktemp("whole") / "out", failing_gate=fails)
        for fails in (False, True)
    }


def check_fault(
    base: Path, out: Path, at: int, code: int, calls: list[str], results: bytes, *, failing_gate: bool
) -> str:
    """One run with one failing call; which phase it hit."""
    written = calls.index("replace results.json") + 1  # the fsync of the folder is what makes it durable
    before, files.system = files.system, (shim := Failing(at, code))
    try:
        report = assess.execute(plan_in(base, out, failing_gate=failing_gate), name="run")
        exit_code, said = report.exit_code, " ".join(report.results.verdict.sentences)
        raised = False
    except ResourceError as error:
        exit_code, said, raised = error.exit_code, str(error), True
    finally:
        files.system = before
    assert shim.calls[:at] == calls[:at], "the run is not the same up to the fault"
    run = only_run(out)
    results_there = run is not None and (run / "results.json").exists()
    if failing_gate and at - 1 > written:
        assert exit_code == 1  # the gate failed, the results say so: that outweighs a missing report
    elif failing_gate and results_there and not raised:
        assert exit_code in {1, 6}
    else:
        assert exit_code == 6
    assert errno.errorcode[code] in said or exit_code == 1
    assert (str(out) in said and "MiB free" in said) or exit_code == 1
    if run is None:
        assert raised
        again = assess.execute(plan_in(base, out, failing_gate=failing_gate), name="run")
        run = only_run(out)
        assert run
    else:
        again = assess.resume(run)
    assert again.exit_code == (1 if failing_gate else 0)
    assert (run / "results.json").read_bytes() == results
    assert not leftovers(run)
    return "before" if raised else "units" if at - 1 < written else "after"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_every_call_fails_once(
    base: Path, tmp_path: Path, whole: dict[bool, tuple[bytes, list[str]]], code: int
) -> None:
    """Every fourth call in the fast suite, from another start for each code; all of them in the slow one."""
    results, calls = whole[False]
    first = 1 if code == errno.ENOSPC else 2
    phases = {
        check_fault(base, tmp_path / str(at), at, code, calls, results, failing_gate=False)
        for at in range(first, len(calls) + 1, 4)
    }
    assert phases == {"before", "units", "after"}


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("failing_gate", [False, True])
def test_really_every_call_fails_once(
    base: Path, tmp_path: Path, whole: dict[bool, tuple[bytes, list[str]]], code: int, failing_gate: bool
) -> None:
    results, calls = whole[failing_gate]
    for at in range(1, len(calls) + 1):
        check_fault(base, tmp_path / str(at), at, code, calls, results, failing_gate=failing_gate)


@pytest.mark.parametrize("name", ["results.json", "report.html", "timings.json"])
def test_a_failed_gate_is_told_although_the_disk_fails(
    base: Path, tmp_path: Path, whole: dict[bool, tuple[bytes, list[str]]], name: str
) -> None:
    """6 when results.json is not durable, else 1: a measured failure is a failure."""
    results, calls = whole[True]
    at = calls.index(f"replace {name}") + 1
    before, files.system = files.system, Failing(at)
    try:
        report = assess.execute(plan_in(base, tmp_path / "out", failing_gate=True), name="run")
    finally:
        files.system = before
    assert report.exit_code == (6 if name == "results.json" else 1)
    assert report.results.verdict.word == ("RESOURCES" if name == "results.json" else "FAIL")
    assert any(str(tmp_path) in sentence and "MiB free" in sentence for sentence in report.results.verdict.sentences)
    if name != "results.json":
        assert (report.path / "results.json").read_bytes() == results

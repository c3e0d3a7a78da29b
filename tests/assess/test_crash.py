"""kill -9 at any instant: no finished unit is lost, every directory can be resumed, the results are the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from assess.assess_harness import Counting, Killing, finished_keys, in_fork, leftovers, only_run
from assess.toy import ToyCheck, install, toy_plan
from vambrace import assess
from vambrace.assess.plan import Plan, PlannedCheck
from vambrace.core import files


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("toy")
    with install(folder):
        yield folder


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[str]]:
    """results.json of a run that nothing disturbs, and the durable calls it makes."""
    out = tmp_path_factory.mktemp("whole")
    before, files.system = files.system, (counting := Counting())
    try:
        report = assess.execute(plan_in(base, out))
    finally:
        files.system = before
    assert report.exit_code == 0
    return (report.path / "results.json").read_bytes(), counting.calls


def plan_in(base: Path, out: Path, **changes: object) -> Plan:
    return toy_plan(base, run={"out": str(out), **changes})


def killed(base: Path, out: Path, at: int) -> int:
    def work() -> int:
        files.system = Killing(at)
        return assess.execute(plan_in(base, out)).exit_code

    return in_fork(work)


def check_resumable(base: Path, out: Path, wanted: bytes) -> tuple[int, int]:
    """Resume what a kill left, if anything; units that were finished, and units that ran again. Both are counted."""
    run = only_run(out)
    if run is None:
        assert assess.execute(plan_in(base, out)).exit_code == 0
        run = only_run(out)
        assert run
        assert (run / "results.json").read_bytes() == wanted
        return 0, 0
    before = finished_keys(run)
    report = assess.resume(run)
    assert report.exit_code == 0
    after = finished_keys(run)
    assert (run / "results.json").read_bytes() == wanted
    assert not leftovers(run)
    assert all(path.exists() for path in report.written)
    again = sum(count > 1 for count in after.values())
    assert before.keys() <= after.keys()
    assert again == 0, "a finished unit ran again"
    return len(before), len(after)


def test_the_kill_points_cover_every_phase(whole: tuple[bytes, list[str]]) -> None:
    calls = whole[1]
    for name in (
        "plan.json",
        "journal",
        "environment.json",
        "results.json",
        "timings.json",
        "report.html",
        "junit.xml",
    ):
        assert f"replace {name}" in calls
    assert calls.count("mkdir") >= 2  # the run, the evidence
    assert sum(call.endswith(".safetensors") for call in calls) == 3


@pytest.mark.parametrize("share", [0.0, 0.35, 0.7, 1.0])
def test_killed_in_a_durable_call(base: Path, tmp_path: Path, whole: tuple[bytes, list[str]], share: float) -> None:
    results, calls = whole
    at = 1 + round(share * (len(calls) - 1))
    assert killed(base, tmp_path, at) == -signal.SIGKILL
    check_resumable(base, tmp_path, results)


def test_killed_twice_and_while_resuming(base: Path, tmp_path: Path, whole: tuple[bytes, list[str]]) -> None:
    results, calls = whole
    place = calls.index("replace environment.json")
    assert killed(base, tmp_path, place + 12) == -signal.SIGKILL
    run = only_run(tmp_path)
    assert run

    def again() -> int:
        files.system = Killing(14)
        return assess.resume(run).exit_code

    assert in_fork(again) == -signal.SIGKILL
    check_resumable(base, tmp_path, results)


@pytest.mark.slow
def test_killed_in_every_durable_call(base: Path, tmp_path: Path, whole: tuple[bytes, list[str]]) -> None:
    results, calls = whole
    finished = 0
    for at in range(1, len(calls) + 1):
        out = tmp_path / str(at)
        assert killed(base, out, at) == -signal.SIGKILL
        finished += check_resumable(base, out, results)[0]
    assert finished > len(calls)


RUN = """
import sys
from pathlib import Path
from assess.toy import ToyCheck, toy_plan
from vambrace import assess
from vambrace.assess.plan import PlannedCheck
base, out, workers = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
checks = tuple(PlannedCheck(id=f"c{n}", check=ToyCheck(scale=n + 1.0, pause=0.02, saves=n % 2 == 0)) for n in range(6))
print("started", flush=True)
report = assess.execute(toy_plan(base, *checks, gates=None, run={"out": out, "workers": workers, "chunk": 10}))
print("ended", flush=True)
"""


def start(base: Path, out: Path, workers: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(base), str(out), str(workers)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def gone(group: int) -> bool:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_process_group_killed_at_random_instants(base: Path, tmp_path: Path, workers: int) -> None:
    """20 uniform instants from the first line of the program to the last report, with real signals and processes."""
    with start(base, tmp_path / "whole", workers) as process:
        assert process.stdout
        process.stdout.readline()
        began = time.monotonic()
        process.stdout.readline()
        took = time.monotonic() - began
    whole = only_run(tmp_path / "whole")
    assert whole
    wanted = (whole / "results.json").read_bytes()
    checks = tuple(
        PlannedCheck(id=f"c{n}", check=ToyCheck(scale=n + 1.0, pause=0.02, saves=n % 2 == 0)) for n in range(6)
    )
    random.seed(workers)
    lost = redone = finished = 0
    for number in range(20):
        out = tmp_path / str(number)
        with start(base, out, workers) as process:
            assert process.stdout
            process.stdout.readline()
            time.sleep(random.uniform(0, took))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert gone(process.pid)
        run = only_run(out)
        if run is None:
            report = assess.execute(toy_plan(base, *checks, gates=None, run={"out": str(out), "chunk": 10}))
            assert (report.path / "results.json").read_bytes() == wanted
            continue
        before = finished_keys(run)
        report = assess.resume(run)
        after = finished_keys(run)
        assert (run / "results.json").read_bytes() == wanted
        finished += len(before)
        lost += len(before.keys() - after.keys())
        redone += sum(count > 1 for count in after.values())
    assert (lost, redone) == (0, 0)
    assert finished > 0

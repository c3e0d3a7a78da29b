"""Worker processes: values in and out, and whatever kills them costs no more than it must."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vambrace.errors import ConfigError, ModelRefused, ResourceError
from vambrace.executors import Outcome, ProcessExecutor

FACTORY = "executors.executor_tasks:build"


def run(tasks: list[dict[str, Any]], workers: int = 2, factory: str = FACTORY) -> list[Outcome]:
    executor = ProcessExecutor(factory, "hello", workers=workers)
    try:
        return sorted(executor.run(enumerate(tasks)), key=lambda outcome: outcome.index)
    finally:
        executor.close()


def gone(pid: int, within: float = 5.0) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_values_come_back_from_other_processes() -> None:
    found = run([{"do": "double", "n": n} for n in range(7)])
    assert [outcome.value["n"] for outcome in found] == [0, 2, 4, 6, 8, 10, 12]
    assert {outcome.value["said"] for outcome in found} == {"hello"}
    assert os.getpid() not in {outcome.value["pid"] for outcome in found}
    assert len({outcome.value["pid"] for outcome in found}) <= 2
    assert not any(outcome.deaths for outcome in found)


def test_large_values_and_noise_on_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    found = run([{"do": "big", "size": 3_000_000}, {"do": "print"}, {"do": "big", "size": 1}])
    assert [len(outcome.value.get("text", "")) for outcome in found] == [3_000_000, 0, 1]
    out, err = capfd.readouterr()
    assert out == ""
    assert "noise on stdout" in err
    assert "more noise" in err


def test_a_worker_that_dies_costs_one_more_try(tmp_path: Path) -> None:
    found = run([{"do": "die once", "mark": str(tmp_path / "mark")}, *({"do": "double", "n": n} for n in range(3))])
    assert found[0].value == {"n": 1}
    assert found[0].deaths == ("was killed by SIGKILL",)
    assert [outcome.value["n"] for outcome in found[1:]] == [0, 2, 4]


@pytest.mark.parametrize(
    ("task", "word"),
    [
        ({"do": "die"}, "was killed by SIGKILL"),
        ({"do": "die", "signal": int(signal.SIGSEGV)}, "was killed by SIGSEGV"),
        ({"do": "exit"}, "ended with exit code 7"),
    ],
)
def test_a_unit_that_kills_two_workers_is_lost(task: dict[str, Any], word: str) -> None:
    found = run([task, {"do": "double", "n": 5}])
    assert found[0].lost
    assert found[0].value is None
    assert found[0].deaths == (word, word)
    assert found[1].value["n"] == 10


def test_death_is_seen_although_a_grandchild_holds_the_pipe() -> None:
    began = time.monotonic()
    found = run([{"do": "die, child lives"}], workers=1)
    assert found[0].lost
    assert time.monotonic() - began < 15


def test_tasks_are_drawn_only_when_somebody_is_free() -> None:
    drawn: list[int] = []

    def feed() -> Iterator[tuple[int, Any]]:
        for n in range(6):
            drawn.append(n)
            yield n, {"do": "double", "n": n}

    executor = ProcessExecutor(FACTORY, None, workers=2)
    try:
        outcomes = executor.run(feed())
        next(outcomes)
        assert len(drawn) == 2
        assert len([*outcomes]) == 5
    finally:
        executor.close()


def test_an_error_of_the_factory_is_raised_here() -> None:
    with pytest.raises(ModelRefused) as caught:
        run([{"do": "double", "n": 1}], factory="executors.executor_tasks:refuses")
    assert (caught.value.code, caught.value.seen, caught.value.fix) == ("E203", "a", "c")


@pytest.mark.parametrize("factory", ["executors.executor_tasks:breaks", "no_such_module:build"])
def test_a_bug_of_the_factory_is_a_bug(factory: str) -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError|No module named"):
        run([{"do": "double", "n": 1}], factory=factory)


@pytest.mark.parametrize("factory", ["executors.executor_tasks:no_factory", "executors.executor_tasks:absent"])
def test_a_name_that_is_no_factory(factory: str) -> None:
    with pytest.raises(ConfigError, match="E512"):
        run([{"do": "double", "n": 1}], factory=factory)


def test_a_bug_of_the_task_is_raised_with_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="KeyError: 'not foreseen'"):
        run([{"do": "raise"}])


def test_workers_that_never_start_end_the_run() -> None:
    with pytest.raises(ResourceError, match="E612") as caught:
        run([{"do": "double", "n": 1}], factory="executors.executor_tasks:dies")
    assert caught.value.exit_code == 6


def test_close_kills_what_runs(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    executor = ProcessExecutor(FACTORY, None, workers=2)
    outcomes = executor.run([(0, {"do": "sleep", "mark": str(mark), "seconds": 60}), (1, {"do": "double", "n": 1})])
    assert next(outcomes).index == 1
    _wait_for(mark)
    executor.close()
    executor.close()
    assert gone(int(mark.read_text()))


def _wait_for(path: Path) -> None:
    end = time.monotonic() + 30
    while not (path.exists() and path.read_text()) and time.monotonic() < end:
        time.sleep(0.02)


PARENT = """
import sys
from vambrace.executors import ProcessExecutor
executor = ProcessExecutor("executors.executor_tasks:build", None, workers=1)
for outcome in executor.run([(0, {"do": "sleep", "mark": sys.argv[1], "seconds": 60})]):
    pass
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_process_that_started_them(tmp_path: Path, number: int) -> None:
    """Killed alone, the parent takes its workers along; a Ctrl-C in the group is the parent's to answer."""
    mark = tmp_path / "pid"
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(mark)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as parent:
        _wait_for(mark)
        pid = int(mark.read_text())
        if number == signal.SIGINT:
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
            assert not gone(pid, within=0.3)
        os.kill(parent.pid, number)
        parent.wait(10)
    assert gone(pid)


def test_no_descriptor_and_no_process_leaks() -> None:
    before = len(os.listdir("/proc/self/fd"))
    run([{"do": "die"}, {"do": "double", "n": 1}])
    assert len(os.listdir("/proc/self/fd")) == before

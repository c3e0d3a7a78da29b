"""Whole assessments with the real checks: one result from one process, from several, and after a kill."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from assess.assess_harness import Counting, Killing, finished_keys, in_fork, only_run
from vambrace import assess, data
from vambrace.assess.plan import Plan
from vambrace.assess.reading import parse_plan
from vambrace.assess.replaying import replay
from vambrace.core import files
from vambrace.testing.digits import train

CHECKS = [
    {"check": "clean"},
    {"attack": "pgd", "norm": "linf", "eps": [0.05, 0.15], "steps": 5, "restarts": 2, "limit": 40},
    {"attack": "apgd", "norm": "linf", "eps": [0.1], "steps": 6, "limit": 30},
    {"perturb": "gaussian_noise", "severities": [1, 5]},
    {"perturb": "jpeg", "severities": [3]},
    {"check": "membership"},
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("digits")
    batch = data.load("digits:train", limit=400).read(range(400))
    network = train(batch.inputs, batch.labels, width=4, epochs=6)
    save_file(network.state_dict(), folder / "net.safetensors")
    (folder / "my_net.py").write_text(
        "from vambrace.testing.digits import network\n\ndef net():\n    return network(4)\n"
    )
    yield folder
    sys.modules.pop("my_net", None)


def plan_in(base: Path, out: Path, **run: Any) -> Plan:
    table = {
        "profile": "ci",
        "seed": 1,
        "model": {"source": "net.safetensors", "factory": "my_net:net"},
        "contract": {"bounds": [0, 1]},
        "data": {
            "eval": {"source": "digits:test", "limit": 100},
            "members": {"source": "digits:train", "limit": 60},
            "nonmembers": {"source": "digits:test", "limit": 60},
        },
        "trust": {"code": ["my_net"]},
        "run": {"out": str(out), "threads": 1, "batch": 16, "chunk": 32, "images": 4, **run},
        "check": CHECKS,
        "gate": [{"metric": "clean.accuracy", "min": 0.4}],
    }
    return parse_plan(table, base=base, where="test")


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[assess.Report, int]:
    torch.set_num_threads(1)
    before, files.system = files.system, (counting := Counting())
    try:
        report = assess.execute(plan_in(base, tmp_path_factory.mktemp("whole") / "out"))
    finally:
        files.system = before
    return report, len(counting.calls)


def content(run: Path) -> bytes:
    return (run / "results.json").read_bytes()


def test_the_run_is_a_real_one(whole: tuple[assess.Report, int]) -> None:
    report, _ = whole
    assert report.exit_code == 0
    values = {finding.name: finding.value for finding in report.results.findings}
    assert values["clean.accuracy"] > 0.6
    assert values["pgd-linf.robust_accuracy@0.15"] < values["pgd-linf.robust_accuracy@0.05"] < values["clean.accuracy"]
    assert report.results.model["kind"] == "torch"
    assert len(report.timings["units"]) > 12


def test_processes_give_the_same_bytes(base: Path, tmp_path: Path, whole: tuple[assess.Report, int]) -> None:
    report = assess.execute(plan_in(base, tmp_path, workers=2))
    assert content(report.path) == content(whole[0].path)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
def test_killed_and_resumed_gives_the_same_bytes(
    base: Path, tmp_path: Path, whole: tuple[assess.Report, int], share: float
) -> None:
    def work() -> int:
        files.system = Killing(int(share * whole[1]))
        return assess.execute(plan_in(base, tmp_path)).exit_code

    assert in_fork(work) == -signal.SIGKILL
    run = only_run(tmp_path)
    assert run
    assert finished_keys(run)
    assert assess.resume(run).exit_code == 0
    assert content(run) == content(whole[0].path)


def test_every_saved_example_replays(whole: tuple[assess.Report, int]) -> None:
    saved = [example for finding in whole[0].results.findings for example in finding.evidence]
    assert len(saved) >= 4
    for example in saved:
        assert replay(whole[0].path, example.finding).holds

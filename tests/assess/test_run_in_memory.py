"""`assess.run`: models and data in memory, and what they can and cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from assess.toy import ToyCheck, install
from vambrace import assess, data, models
from vambrace.errors import ConfigError


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("toy")
    with install(folder):
        yield folder


def content(report: assess.Report) -> bytes:
    return (report.path / "results.json").read_bytes()


def model_of(seed: int = 0, **options: Any) -> models.TorchModel:
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    return models.from_torch(net, bounds=(0, 1), **options)


def run_it(model: models.TorchModel, out: Path, **options: Any) -> assess.Report:
    batches = data.load("digits:test", limit=40)
    return assess.run(model, batches, checks=[ToyCheck()], gates="none", out=out, **options)


def test_run_and_resume(base: Path, tmp_path: Path) -> None:
    report = run_it(model_of(identity="toy-1"), tmp_path, seed=3)
    assert report.exit_code == 0
    assert report.results.verdict.word == "MEASURED, NOT JUDGED"
    assert report.results.model["kind"] == "torch"
    assert [check["id"] for check in report.results.plan["checks"]] == ["clean", "toy"]
    wanted = content(report)
    again = assess.resume(
        report.path, model=model_of(identity="toy-1"), batches={"eval": data.load("digits:test", limit=40)}
    )
    assert content(again) == wanted


def test_without_identity_it_cannot_be_resumed(base: Path, tmp_path: Path) -> None:
    batches = {"eval": data.load("digits:test", limit=40)}
    report = run_it(model_of(), tmp_path)
    assert report.exit_code == 0
    assert report.results.model["kind"] == "memory"
    with pytest.raises(ConfigError, match="E505"):
        assess.resume(report.path, model=model_of(), batches=batches)
    with pytest.raises(ConfigError, match="E512"):
        assess.resume(report.path)
    vouched = run_it(model_of(), tmp_path, identity="v1")
    assert assess.resume(vouched.path, model=model_of(), batches=batches, identity="v1").exit_code == 0
    with pytest.raises(ConfigError, match="E503.*v2"):
        assess.resume(vouched.path, model=model_of(), batches=batches, identity="v2")


def test_other_weights_or_data_refuse_to_resume(base: Path, tmp_path: Path) -> None:
    report = run_it(model_of(identity="toy"), tmp_path)
    batches = {"eval": data.load("digits:test", limit=40)}
    with pytest.raises(ConfigError, match="E503"):
        assess.resume(report.path, model=model_of(1, identity="toy"), batches=batches)
    with pytest.raises(ConfigError, match="E504"):
        assess.resume(
            report.path,
            model=model_of(identity="toy"),
            batches={"eval": data.load("digits:test", limit=41)},
        )
    with pytest.raises(ConfigError, match="E504"):
        assess.resume(
            report.path,
            model=model_of(identity="toy"),
            batches={**batches, "members": data.load("digits:test", limit=40)},
        )


def test_no_other_processes_for_what_is_in_memory(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="E512"):
        run_it(model_of(), tmp_path, options=assess.RunSpec(workers=2))
    assert not tmp_path.exists() or not list(tmp_path.iterdir())


def test_threads_and_gradient_mode_are_put_back(base: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    run_it(model_of(), tmp_path, options=assess.RunSpec(threads=before + 1))
    assert torch.get_num_threads() == before
    assert torch.is_grad_enabled()


def test_an_unregistered_check_is_refused(base: Path, tmp_path: Path) -> None:
    class Other(ToyCheck):
        """Claims to be the toy check."""

    batches = data.load("digits:test", limit=40)
    with pytest.raises(ConfigError, match="E516"):
        assess.run(model_of(), batches, checks=[Other()], out=tmp_path)


def test_reports_on_demand(base: Path, tmp_path: Path) -> None:
    report = run_it(model_of(), tmp_path / "runs")
    for name in ("a/r.html", "r.xml", "r.json"):
        assert report.write(tmp_path / name).stat().st_size > 100
    assert (tmp_path / "r.json").read_bytes() == content(report)
    with pytest.raises(ConfigError, match="E515"):
        report.write(tmp_path / "r.pdf")

"""The main job as a Python user has it: a model and data in, a report and an exit code out."""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import vambrace
from vambrace import assess, data, models
from vambrace.assess.checks.adversarial import AdversarialCheck
from vambrace.assess.checks.clean import CleanCheck
from vambrace.assess.checks.membership import MembershipCheck
from vambrace.assess.checks.natural import NaturalCheck
from vambrace.assess.plan import GateSpec, RunSpec
from vambrace.assess.reading import read_plan
from vambrace.attacks import PGD
from vambrace.core.access import Access
from vambrace.core.findings import Status
from vambrace.errors import AccessError, ConfigError
from vambrace.perturb import Rotate
from vambrace.testing.digits import train

ONE_THREAD = RunSpec(threads=1, images=3)
WEIGHTS, FACTORY = "net.safetensors", "main_job_net:net"
PLAN = f"""
schema = 1
profile = "smoke"
[model]
source = "{WEIGHTS}"
factory = "{FACTORY}"
[contract]
bounds = [0, 1]
[data.eval]
source = "digits:test"
limit = 120
[trust]
code = ["main_job_net"]
[run]
threads = 1
images = 3
batch = 64
chunk = 64
"""


@pytest.fixture(scope="module")
def net():
    part = data.load("digits:train")
    batch = part.read(range(len(part)))
    return train(batch.inputs, batch.labels, width=8, epochs=6)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits:test", limit=120)


@pytest.fixture(scope="module")
def folder(net, tmp_path_factory) -> Iterator[Path]:
    """What a user has: weights, the code that builds the network, a plan."""
    folder = tmp_path_factory.mktemp("user")
    save_file(net.state_dict(), folder / WEIGHTS)
    (folder / "main_job_net.py").write_text(
        "from vambrace.testing.digits import network\n\ndef net():\n    return network(8)\n"
    )
    (folder / "vambrace.toml").write_text(PLAN)
    yield folder
    sys.modules.pop("main_job_net", None)


@pytest.fixture(scope="module")
def ran(net, digits, tmp_path_factory):
    """The job in two lines."""
    out = tmp_path_factory.mktemp("ran")
    return assess.run(models.from_torch(net, bounds=(0, 1)), digits, profile="smoke", options=ONE_THREAD, out=out)


def finding_of(report: assess.Report, name: str) -> Any:
    return next(finding for finding in report.results.findings if finding.name == name)


def values_of(report: assess.Report) -> dict[str, float | None]:
    return {finding.name: finding.value for finding in report.results.findings}


def content(report: assess.Report) -> bytes:
    return (report.path / "results.json").read_bytes()


def left_out(report: assess.Report) -> str:
    return " | ".join(f"{left.name}: {left.reason}" for left in report.results.left_out)


def test_a_module_in_memory(ran, net, digits):
    batch = digits.read(range(120))
    right = int((net(batch.inputs).argmax(dim=1) == batch.labels).sum())
    assert finding_of(ran, "clean.accuracy").value == right / 120
    assert ran.exit_code == ran.results.verdict.exit_code == 0
    assert ran.results.verdict.word == "PASS"
    assert "robust accuracy was measured, not judged" in ran.results.verdict.sentences[0]
    assert {finding.family for finding in ran.results.findings} == {"preflight", "clean", "adversarial", "natural"}
    robust = next(finding for finding in ran.results.findings if finding.metric.startswith("robust_accuracy"))
    assert 0 <= robust.value < right / 120
    assert (robust.n, robust.status) == (32, Status.MEASURED)
    for name in (
        "plan.json",
        "journal",
        "environment.json",
        "timings.json",
        "results.json",
        "report.html",
        "junit.xml",
    ):
        assert (ran.path / name).stat().st_size > 0
    assert {path.name for path in ran.written} == {"results.json", "report.html", "junit.xml"}
    assert "membership" in left_out(ran)
    page = (ran.path / "report.html").read_text()
    assert f"{100 * right / 120:.1f}".rstrip("0").rstrip(".") in page
    assert not any(part.training for part in net.modules())
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_the_same_job_twice_is_the_same_bytes(ran, net, digits, tmp_path):
    torch.manual_seed(99)  # global randomness is nobody's business
    again = assess.run(models.from_torch(net, bounds=(0, 1)), digits, profile="smoke", options=ONE_THREAD, out=tmp_path)
    assert content(again) == content(ran)
    other = assess.run(
        models.from_torch(net, bounds=(0, 1)), digits, profile="smoke", options=ONE_THREAD, out=tmp_path, seed=1
    )
    assert content(other) != content(ran)


def test_a_plan_with_weights_and_factory_finds_the_same_numbers(ran, folder, tmp_path):
    plan = read_plan(folder / "vambrace.toml")
    report = assess.execute(with_run(plan, out=str(tmp_path)))
    assert report.exit_code == 0
    assert values_of(report) == pytest.approx(values_of(ran), abs=1e-5)
    assert report.results.model["kind"] == "torch"
    assert len(report.results.model["sha256"]) == 64


def test_two_processes_write_the_same_bytes(folder, tmp_path):
    plan = read_plan(folder / "vambrace.toml")
    serial = assess.execute(with_run(plan, out=str(tmp_path / "one")))
    double = assess.execute(with_run(plan, out=str(tmp_path / "two"), workers=2))
    assert serial.exit_code == double.exit_code == 0
    assert content(serial) == content(double)
    files = [sorted(path.name for path in (report.path / "evidence").iterdir()) for report in (serial, double)]
    assert files[0] == files[1]
    assert files[0]


def with_run(plan: Any, **changes: Any) -> Any:
    return dataclasses.replace(plan, run=dataclasses.replace(plan.run, **changes))


@pytest.fixture(scope="module")
def scores_only(net, folder):
    """The same network through ONNX: scores and no gradients."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    weights = {name: value.numpy() for name, value in net.state_dict().items()}
    nodes = [
        helper.make_node("Conv", ["x", "0.weight", "0.bias"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "2.weight", "2.bias"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Flatten", ["d"], ["e"]),
        helper.make_node("Gemm", ["e", "5.weight", "5.bias"], ["f"], transB=1),
        helper.make_node("Relu", ["f"], ["g"]),
        helper.make_node("Gemm", ["g", "7.weight", "7.bias"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(made, str(folder / "net.onnx"))
    return vambrace.load(folder / "net.onnx")


def test_a_model_without_gradients_leaves_white_box_checks_out(ran, scores_only, digits, tmp_path):
    assert scores_only.access is Access.SCORES
    report = assess.run(scores_only, digits, profile="ci", options=ONE_THREAD, out=tmp_path)
    assert report.exit_code == 0
    attacks = {finding.check for finding in report.results.findings if finding.family == "adversarial"}
    assert attacks == {"square-linf", "square-l2"}, "a black-box attack takes their place"
    assert 0 <= values_of(report)["square-linf.robust_accuracy@0.3"] < values_of(report)["clean.accuracy"]
    assert finding_of(report, "clean.accuracy").value == finding_of(ran, "clean.accuracy").value
    assert "needs gradients, and the model gives scores" in left_out(report)
    for attack in ("pgd-linf", "adaptive-linf", "adaptive-l2"):
        assert attack in left_out(report)
    assert "pgd-linf" in (report.path / "report.html").read_text()


def test_a_white_box_check_that_was_named_is_an_error_before_work(scores_only, digits, tmp_path):
    check = AdversarialCheck(attack=PGD(eps=0.1), eps=(0.1,))
    with pytest.raises(AccessError, match="pgd-linf needs gradients") as caught:
        assess.run(scores_only, digits, checks=[check], out=tmp_path)
    assert (caught.value.code, caught.value.exit_code) == ("E110", 2)
    assert not list(tmp_path.iterdir())


class LabelsOnly:
    """What a service gives that tells the class and nothing else."""

    access, outputs, identity, dtype = Access.LABELS, "labels", None, torch.float32
    device, input_shape, num_classes = torch.device("cpu"), (1, 8, 8), 10

    def __init__(self, module: nn.Module) -> None:
        self.model = models.from_torch(module)
        self.bounds = self.model.bounds

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        raise AssertionError("this model gives labels only")

    def predict(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.model.predict(inputs)


def test_a_model_that_gives_labels_only(ran, net, digits, tmp_path):
    members = data.load("digits:train", limit=30)
    report = assess.run(
        LabelsOnly(net), digits, members=members, nonmembers=digits, profile="ci", options=ONE_THREAD, out=tmp_path
    )
    assert report.exit_code == 0
    assert {finding.family for finding in report.results.findings} == {"preflight", "clean", "natural", "adversarial"}
    attacks = {finding.check for finding in report.results.findings if finding.family == "adversarial"}
    assert attacks == {"hop_skip_jump-l2", "rays-linf"}
    assert values_of(report)["clean.accuracy"] == values_of(ran)["clean.accuracy"]
    assert "clean.loss" not in values_of(report)
    assert "membership needs scores, and the model gives labels" in left_out(report)


def test_members_and_nonmembers(net, digits, tmp_path):
    members = data.load("digits:train", limit=150)
    report = assess.run(
        models.from_torch(net),
        digits,
        members=members,
        nonmembers=data.load("digits:test", limit=150),
        profile="ci",
        options=ONE_THREAD,
        out=tmp_path,
        checks=[CleanCheck(), MembershipCheck()],
        gates=[GateSpec(metric="membership.auc", max=0.9)],
    )
    auc = finding_of(report, "membership.auc")
    assert 0.45 < auc.value < 0.8
    assert auc.interval.low < auc.value < auc.interval.high
    assert auc.status is Status.PASS
    assert finding_of(report, "membership.tpr@0.1").value is not None
    scarce = finding_of(report, "membership.tpr@0.001")
    assert (scarce.value, scarce.status) == (None, Status.NOT_MEASURED)
    assert "10,000" in scarce.reason
    assert report.exit_code == 0
    assert set(report.results.data) == {"eval", "members", "nonmembers"}


def test_a_gate_on_a_role_that_is_not_there_is_an_error(net, digits, tmp_path):
    with pytest.raises(ConfigError, match="needs data for members and nonmembers") as caught:
        assess.run(
            models.from_torch(net),
            digits,
            checks=[MembershipCheck()],
            out=tmp_path,
        )
    assert (caught.value.code, caught.value.exit_code) == ("E169", 2)


def worse(net: nn.Module) -> nn.Module:
    """The same network after an accident with its weights."""
    spoiled = copy.deepcopy(net)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in spoiled.parameters():
            parameter.add_(0.35 * parameter.abs().mean() * torch.randn(parameter.shape, generator=generator))
    return spoiled


def test_a_baseline_is_what_a_model_may_not_fall_below(net, digits, tmp_path):
    def run(module: nn.Module, baseline: Path | None = None) -> assess.Report:
        checks = [CleanCheck(), AdversarialCheck(attack=PGD(eps=0.05, steps=5), eps=(0.02, 0.05))]
        options = {"profile": "smoke", "options": ONE_THREAD, "out": tmp_path, "baseline": baseline}
        return assess.run(models.from_torch(module), digits, checks=checks, **options)

    before = run(net)
    same = run(net, before.path)
    assert before.exit_code == same.exit_code == 0
    compared = [gate for gate in same.results.gates if "robust_accuracy" in gate.finding]
    assert compared
    assert all(gate.status is Status.PASS and gate.observed == 0 for gate in compared)
    alone, fallen = run(worse(net)), run(worse(net), before.path)
    assert (alone.exit_code, fallen.exit_code) == (0, 1), "good enough by itself, and worse than before"
    failed = [gate for gate in fallen.results.gates if gate.status is Status.FAIL]
    assert failed
    assert all("robust_accuracy" in gate.finding and gate.observed > 0 for gate in failed)


def test_gates_decide_and_none_is_said(ran, net, digits, tmp_path):
    def exit_of(gates: Any) -> tuple[int, str]:
        report = assess.run(
            models.from_torch(net), digits, checks=[CleanCheck()], gates=gates, options=ONE_THREAD, out=tmp_path
        )
        return report.exit_code, report.results.verdict.word

    accuracy = values_of(ran)["clean.accuracy"]
    assert exit_of("none") == (0, "MEASURED, NOT JUDGED")
    assert exit_of([GateSpec(metric="clean.accuracy", min=accuracy, use="value")]) == (0, "PASS")
    assert exit_of([GateSpec(metric="clean.accuracy", min=accuracy)]) == (1, "FAIL"), "the interval decides"
    assert exit_of([GateSpec(metric="clean.accuracy", min=1.0, required=False)]) == (0, "PASS"), "it only warns"
    assert exit_of([GateSpec(metric="clean.acuracy", min=0.5)]) == (4, "INCOMPLETE")


def test_no_images_means_none_and_changes_no_number(ran, net, digits, tmp_path):
    report = assess.run(
        models.from_torch(net), digits, profile="smoke", options=RunSpec(threads=1, images=0), out=tmp_path
    )
    assert values_of(report) == values_of(ran)
    assert not any(finding.evidence for finding in report.results.findings)
    assert not list((report.path / "evidence").glob("*"))
    shown = [evidence for finding in ran.results.findings for evidence in finding.evidence]
    assert 0 < len(shown) <= 3 * len(ran.results.findings)
    assert all((ran.path / evidence.file).exists() for evidence in shown)


def test_checks_of_ones_own_choice(net, digits, tmp_path):
    report = assess.run(
        models.from_torch(net),
        digits,
        checks=[
            NaturalCheck(perturbation=Rotate(), severities=(1, 5)),
            AdversarialCheck(attack=PGD(eps=0.1, steps=3), eps=(0.05, 0.1)),
        ],
        gates="none",
        options=ONE_THREAD,
        out=tmp_path,
        name="mine",
    )
    assert report.path == tmp_path / "mine"
    assert [check["id"] for check in report.results.plan["checks"]] == ["clean", "rotate", "pgd-linf"]
    values = values_of(report)
    assert values["pgd-linf.robust_accuracy@0.1"] <= values["pgd-linf.robust_accuracy@0.05"] <= values["clean.accuracy"]
    assert values["rotate.accuracy@5"] < values["rotate.accuracy@1"]
    with pytest.raises(ConfigError):
        assess.run(models.from_torch(net), digits, checks=[CleanCheck()], options=ONE_THREAD, out=tmp_path, name="mine")


def test_a_module_in_train_mode_is_assessed_in_eval_mode_and_put_back(ran, digits, net, tmp_path):
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.drop = net, nn.Dropout(0.5)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.net(self.drop(inputs))

    module = Dropping()
    module.drop.train()
    report = assess.run(models.from_torch(module), digits, profile="smoke", options=ONE_THREAD, out=tmp_path)
    assert values_of(report) == values_of(ran)
    assert module.drop.training

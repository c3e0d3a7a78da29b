"""The gates that ship: what each profile demands, and that a gate of one's own takes away only what it replaces."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vambrace import assess, models
from vambrace.assess.checks.clean import CleanCheck
from vambrace.assess.plan import GateSpec, RunSpec
from vambrace.assess.reporting import rejudge
from vambrace.assess.shipped import Named, beside, majority, shipped_for, shipped_gates

CHECKS = (
    Named(id="clean", kind="clean"),
    Named(id="pgd-linf", kind="adversarial"),
    Named(id="turn", kind="natural", severities=(2, 3)),
    Named(id="tilt", kind="natural", severities=(1, 3)),
    Named(id="membership", kind="membership"),
)
SMOKE = (GateSpec(metric="preflight.ok", min=1.0, use="value"), GateSpec(metric="clean.accuracy", min=0.15))
CI = (*SMOKE, GateSpec(metric="tilt.drop@1", max=10.0))
FULL = (*CI, GateSpec(metric="membership.auc", max=0.6))


def test_what_each_profile_demands() -> None:
    for profile, gates in (("smoke", SMOKE), ("ci", CI), ("full", FULL)):
        assert shipped_gates(profile, CHECKS, num_classes=10, majority=0.1) == gates
    assert shipped_gates("full", CHECKS[:1], num_classes=10, majority=0.1) == SMOKE
    assert not any("robust" in gate.metric for gate in FULL)


@pytest.mark.parametrize(
    ("classes", "share", "least"), [(10, 0.1, 0.15), (10, 0.4, 0.4), (2, 0.5, 0.75), (2, 0.9, 0.9), (1, 0.0, 1.0)]
)
def test_above_chance_and_above_the_commonest_class(classes: int, share: float, least: float) -> None:
    assert shipped_gates("smoke", CHECKS, num_classes=classes, majority=share)[1].min == pytest.approx(least)


def test_the_commonest_class() -> None:
    assert majority([1, 2, 0, 1]) == 0.5
    assert majority([0, 0, 3]) == majority([]) == 0.0


@pytest.mark.parametrize(
    ("own", "gone"),
    [
        (GateSpec(metric="pgd-linf.robust_accuracy@0.1", min=0.0), ()),
        (GateSpec(metric="clean.accuracy", max_drop=0.01), ()),
        (GateSpec(metric="clean.accuracy", min=0.5), ("clean.accuracy",)),
        (GateSpec(metric="*.drop@1", max=5.0), ("tilt.drop@1",)),
        (GateSpec(metric="clean.accuracy", min=0.01, required=False), ()),
        (GateSpec(metric="clean.accuracy", max=1.0, use="value"), ()),
        (GateSpec(metric="*.drop@1", min=-100.0), ()),
        (GateSpec(metric="*.*", min=0.0), ("preflight.ok", "clean.accuracy")),
        (GateSpec(metric="*.*", max=100.0), ("tilt.drop@1", "membership.auc")),
    ],
)
def test_a_gate_replaces_only_the_shipped_one_on_its_number_from_its_side(own: GateSpec, gone: tuple[str, ...]) -> None:
    assert beside((own,), FULL) == (*(gate for gate in FULL if gate.metric not in gone), own)


class Guess(nn.Module):
    """One class for bright inputs, another for dark ones: a guess, with gradients."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        light = inputs.flatten(1).mean(dim=1, keepdim=True)
        return torch.cat([light * at - 0.1 * at**2 for at in range(10)], dim=1)


def test_a_model_at_chance_never_passes_by_a_gate_on_something_else(digits, tmp_path) -> None:
    own = [GateSpec(metric="clean.loss", max=1e6), GateSpec(metric="clean.accuracy", max=1.0)]
    report = assess.run(
        models.from_torch(Guess().eval()),
        digits,
        checks=[CleanCheck()],
        gates=own,
        options=RunSpec(threads=1),
        out=tmp_path,
    )
    assert report.exit_code == 1
    assert [gate.status for gate in report.results.gates if gate.finding == "clean.accuracy"] == ["fail", "pass"]
    plan = tmp_path / "plan.toml"
    plan.write_text('schema = 1\n[[gate]]\nmetric = "clean.loss"\nmax = 1e6\n')
    assert rejudge(report.path, plan=plan).verdict.exit_code == 1
    assert rejudge(report.path).verdict == report.results.verdict
    shipped = shipped_for(report.results)
    assert [gate.as_json() for gate in (*shipped, *own)] == report.results.plan["gates"]

"""Preflight against well-behaved models, the hostile rows, and models just under and just over each threshold."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch
from torch import nn

from vambrace import models
from vambrace.assess.plan import DataSpec, ModelSpec, Plan, RunSpec, TrustSpec
from vambrace.assess.preflight import preflight
from vambrace.assess.probes import OTHER_CALL, SAME_CALL, Probe, behaviour_flags, gradient_flags
from vambrace.core.contract import InputContract
from vambrace.core.findings import Status
from vambrace.data import load, subset
from vambrace.errors import DataRefused, ModelRefused
from vambrace.testing.digits import train
from vambrace.testing.hostile import MODELS, build

ROWS = tomllib.loads((Path(__file__).parent / "hostile_models.toml").read_text())["row"]


@pytest.fixture(scope="module")
def digits():
    return load("digits:test", limit=200)


@pytest.fixture(scope="module")
def net():
    part = load("digits:train")
    batch = part.read(range(len(part)))
    return train(batch.inputs, batch.labels, epochs=6)


@pytest.fixture
def plan():
    return Plan(
        profile="smoke",
        seed=0,
        model=ModelSpec(),
        contract=InputContract(bounds=(0.0, 1.0)),
        data={"eval": DataSpec(source="digits:test")},
        trust=TrustSpec(),
        run=RunSpec(),
        checks=(),
        gates=None,
    )


def test_every_hostile_model_has_a_row():
    assert sorted(row["model"] for row in ROWS) == sorted(MODELS)
    assert [row["number"] for row in ROWS] == list(range(1, len(ROWS) + 1))


def test_a_good_model_passes_without_remark(net, digits, plan):
    found = preflight(models.from_torch(net), {"eval": digits}, plan)
    assert found.flags == ()
    assert found.finding.value == 1.0
    assert found.finding.status is Status.MEASURED
    assert (found.num_classes, found.input_shape, found.batch) == (10, (1, 8, 8), 256)
    assert found.clean > 0.85
    assert found.gradient_seconds > 0


@pytest.mark.parametrize("row", [row for row in ROWS if row["where"] == "preflight"], ids=lambda row: row["model"])
def test_hostile_models_are_named(row, net, digits, plan):
    model = models.from_torch(build(row["model"], net))
    if row["status"] == "refused":
        with pytest.raises(ModelRefused) as caught:
            preflight(model, {"eval": digits}, plan)
        assert caught.value.code == row["code"]
        assert caught.value.exit_code == 3
        return
    found = preflight(model, {"eval": digits}, plan)
    assert row["code"] in {flag.code for flag in found.flags}
    level = {flag.level for flag in found.flags if flag.code == row["code"]}
    assert level == {row["status"]}
    assert found.finding.status == row["status"]
    assert found.finding.value == (0.0 if row["status"] == "unreliable" else 1.0)


@pytest.mark.parametrize("row", [row for row in ROWS if row["where"] == "units"], ids=lambda row: row["model"])
def test_what_only_the_units_can_see_passes_preflight_unflagged(row, net, digits, plan):
    far = 2.0 * torch.ones(1, 1, 8, 8)
    found = preflight(models.from_torch(build(row["model"], net, marker=far)), {"eval": subset(digits, range(8))}, plan)
    assert not [flag for flag in found.flags if flag.level == "unreliable"]


class Nudged(nn.Module):
    """Adds `size` times the largest logit in one way: per call, by company, or by position."""

    def __init__(self, base: nn.Module, way: str, size: float) -> None:
        super().__init__()
        self.base, self.way, self.size, self.calls = base, way, size, 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits = self.base(inputs)
        scale = 20.0
        logits = logits.clamp(-scale, scale)
        logits = torch.cat([logits[:, :1] * 0 + scale, logits[:, 1:]], dim=1)
        self.calls += 1
        if self.way == "call":
            return logits - self.size * scale * (self.calls % 2)
        if self.way == "company":
            return logits - self.size * scale * (len(inputs) < 32)
        rows = torch.arange(len(inputs))[:, None]
        return logits - self.size * scale * (rows == 0)


@pytest.mark.parametrize(
    ("way", "threshold", "code"),
    [("call", SAME_CALL, "E420"), ("company", OTHER_CALL, "E421"), ("position", OTHER_CALL, "E422")],
)
def test_thresholds_just_under_and_just_over(way, threshold, code, net, digits):
    batch = digits.read(range(32))
    seen = {}
    for factor in (0.5, 2.0):
        model = models.from_torch(Nudged(net, way, factor * threshold).eval())
        probe = Probe.ask(model, batch.inputs, batch.labels, size=32, batch=32)
        seen[factor] = {flag.code for flag in behaviour_flags(probe)}
    assert code not in seen[0.5]
    assert code in seen[2.0]


class PartlyBlind(nn.Module):
    """Cuts the gradient of samples whose first pixel is 1."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        blind = inputs[:, :, :1, :1] == 1
        return self.base(torch.where(blind, inputs.detach(), inputs))


@pytest.mark.parametrize(("blind", "flagged"), [(3, False), (4, True)])
def test_zero_gradients_just_under_and_just_over_a_tenth(blind, flagged, net, digits):
    inputs = digits.read(range(32)).inputs.clone()
    inputs[:, :, 0, 0] = 0
    inputs[:blind, :, 0, 0] = 1
    model = models.from_torch(PartlyBlind(net).eval())
    probe = Probe.ask(model, inputs, torch.zeros(32, dtype=torch.int64), size=32, batch=32)
    codes = {flag.code for flag in gradient_flags(model, probe)[0]}
    assert ("E433" in codes) is flagged


class Changed(nn.Module):
    """A net whose training saw other inputs than it is fed."""

    def __init__(self, base: nn.Module, change) -> None:
        super().__init__()
        self.base, self.change = base, change

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.base(self.change(inputs))


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda x: 1 - x, "black and white"),
        (lambda x: x.transpose(2, 3), "height and width"),
        (lambda x: (x - 127.5).clamp(0, 127.5) / 127.5, "0,255"),
        (lambda x: x.flip(2).roll(3, dims=3), ""),
    ],
    ids=["inverted", "transposed", "0..255", "no usual mistake"],
)
def test_a_score_at_chance_names_the_likely_mistake(change, hint, net, digits, plan):
    flags = preflight(models.from_torch(Changed(net, change).eval()), {"eval": digits}, plan).flags
    named = [flag.text for flag in flags if flag.code == "E432"]
    assert bool(named) is bool(hint)
    assert all(hint in text for text in named)


def test_values_outside_the_bounds_are_refused_with_the_likely_cause(net, digits, plan):
    model = models.from_torch(net, bounds=(0.0, 0.5))
    with pytest.raises(DataRefused, match="E351") as caught:
        preflight(model, {"eval": digits}, plan)
    assert "--bounds" in caught.value.fix


def test_an_empty_role_is_refused(net, digits, plan):
    with pytest.raises(DataRefused, match="E350"):
        preflight(models.from_torch(net), {"eval": digits, "members": subset(digits, [])}, plan)

"""Preflight against well-behaved models, the hostile rows, data that cannot be, and the mistakes that it recognises."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch
from torch import nn

from vambrace import models
from vambrace.assess.plan import DataSpec, ModelSpec, Plan, RunSpec, TrustSpec
from vambrace.assess.preflight import preflight
from vambrace.core.access import Access
from vambrace.core.contract import InputContract
from vambrace.core.findings import Status
from vambrace.data import from_arrays, subset
from vambrace.errors import DataRefused, VambraceError
from vambrace.testing.hostile import MODELS, build

ROWS = tomllib.loads((Path(__file__).parent / "hostile_models.toml").read_text())["row"]


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
        with pytest.raises(VambraceError) as caught:
            preflight(model, {"eval": digits}, plan)
        assert (caught.value.code, caught.value.exit_code) == (row["code"], row["exit"])
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
    assert found.flags == ()


def test_samples_that_make_the_model_raise_are_named_and_left_out(net, digits, plan):
    marked = digits.read([31])
    found = preflight(models.from_torch(build("raises_at_one_sample", net, marked.inputs)), {"eval": digits}, plan)
    (flag,) = found.flags
    assert (flag.code, flag.level) == ("E406", "warn")
    assert f"On 1 of 200 probed samples (such as {marked.names[0]})" in flag.text
    assert "unsupported value in sample" in flag.text
    assert (found.scored, found.finding.status) == (200, Status.WARN)
    good = preflight(models.from_torch(net), {"eval": digits}, plan)
    assert found.clean == pytest.approx(good.clean - 1 / 200)


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


class Picky(nn.Module):
    """Right about nothing, and raises on what lies outside its bounds."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if float(inputs.max()) > 1:
            raise ValueError("inputs must be in [0, 1]")
        return self.base(1 - inputs)


def test_looking_for_mistakes_does_not_mind_models_that_check_their_range(net, digits, plan):
    flags = preflight(models.from_torch(Picky(net).eval()), {"eval": digits}, plan).flags
    assert any("black and white" in flag.text for flag in flags if flag.code == "E432")


class LabelsOnly:
    """A model behind a service: classes, and nothing else."""

    access, outputs, identity, dtype = Access.LABELS, "labels", None, torch.float32
    device, input_shape = torch.device("cpu"), (1, 8, 8)

    def __init__(self, module: nn.Module, num_classes: int | None = 10) -> None:
        self.model = models.from_torch(module)
        self.bounds, self.num_classes = self.model.bounds, num_classes

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        raise AssertionError("this model gives labels only")

    def predict(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.model.predict(inputs)


def test_a_model_that_gives_labels_only_is_probed_by_its_labels(net, digits, plan):
    found = preflight(LabelsOnly(net), {"eval": digits}, plan)
    assert found.flags == ()
    assert found.clean == preflight(models.from_torch(net), {"eval": digits}, plan).clean
    assert (found.num_classes, found.gradient_seconds) == (10, None)
    codes = {}
    for name in ("random_output", "constant_output", "position_dependent", "one_class_never_predicted"):
        flags = preflight(LabelsOnly(build(name, net)), {"eval": digits}, plan).flags
        codes[name] = {flag.code for flag in flags}
    assert codes == {
        "random_output": {"E420"},
        "constant_output": {"E411"},
        "position_dependent": {"E422"},
        "one_class_never_predicted": {"E412"},
    }


@pytest.mark.parametrize("classes", [None, 5])
def test_labels_without_a_number_of_classes_are_refused(net, digits, plan, classes):
    with pytest.raises(VambraceError, match="num_classes") as caught:
        preflight(LabelsOnly(net, classes), {"eval": digits}, plan)
    assert (caught.value.code, caught.value.exit_code) == ("E402", 3)


def test_data_of_one_class_is_unreliable(net, digits, plan):
    """A model that always gives the one label would pass every gate."""
    one = subset(digits, [at for at, label in enumerate(digits.labels) if label == 3])
    found = preflight(models.from_torch(net), {"eval": one}, plan)
    assert "E414" in {flag.code for flag in found.flags}
    assert found.finding.value == 0.0


def test_copies_are_remarked(net, digits, plan):
    few = digits.read(range(40))
    copies = from_arrays(few.inputs.repeat(3, 1, 1, 1), few.labels.repeat(3), contract=InputContract(bounds=(0.0, 1.0)))
    found = preflight(models.from_torch(net), {"eval": copies}, plan)
    assert {flag.code for flag in found.flags if flag.code == "E415"}
    assert found.finding.value == 1.0


def test_what_the_data_is_to_blame_for_is_not_blamed_on_the_model(net, digits, plan):
    alike = subset(digits, [place for place, label in enumerate(digits.labels) if label == 3])
    found = preflight(models.from_torch(net), {"eval": alike}, plan)
    assert [flag.code for flag in found.flags if flag.level == "unreliable"] == ["E414"]
    assert found.finding.sentence.startswith("The data takes the meaning from all numbers: All ")
    assert found.finding.reason.startswith("All ")
    behaviour = preflight(models.from_torch(build("random_output", net)), {"eval": digits}, plan).finding
    assert behaviour.sentence.startswith("The model's behaviour takes the meaning")


def test_one_remark_is_one(net, digits, plan):
    module = models.from_torch(build("more_outputs", net))
    assert preflight(module, {"eval": digits}, plan).finding.sentence == "The model can be measured, with 1 remark."
    one = preflight(models.from_torch(net), {"eval": subset(digits, [0])}, plan).finding
    assert "The only sample has label" in one.reason

"""The clean check against a count by hand, and on models and runs that give no number."""

from __future__ import annotations

import json
import random

import pytest
import torch.nn.functional as F

from vambrace.assess.checks.clean import CleanCheck
from vambrace.core import canonical
from vambrace.core.access import Access
from vambrace.core.findings import Flag, Status
from vambrace.core.intervals import wilson
from vambrace.errors import DataRefused
from vambrace.models import Counted


def test_accuracy_and_loss_are_those_counted_by_hand(world) -> None:
    findings = world.findings(CleanCheck())
    right = int(world.right().sum())
    assert 5 < right < world.n - 5
    accuracy, loss = findings["accuracy"], findings["loss"]
    assert (accuracy.value, accuracy.n, accuracy.status) == (right / 60, 60, Status.MEASURED)
    assert accuracy.interval == wilson(right, 60)
    expected = F.cross_entropy(world.model(world.inputs).double(), world.labels)
    assert loss.value == pytest.approx(float(expected), rel=1e-6)
    assert loss.interval.low < loss.value < loss.interval.high
    assert (loss.unit, loss.higher_is_better) == ("nats", False)
    assert f"about {100 * right / 60:.0f} of 100" in accuracy.sentence


def test_accuracy_by_class(world) -> None:
    series = world.findings(CleanCheck())["accuracy"].series
    right = world.right()
    assert series["class"] == [0, 1, 2, 3, 4]
    assert series["n"] == [12] * 5
    assert series["accuracy"] == [float(right[world.labels == k].double().mean()) for k in range(5)]
    assert all(
        low <= value <= high for low, value, high in zip(series["low"], series["accuracy"], series["high"], strict=True)
    )


def test_records_are_canonical_json_and_one_a_sample(world) -> None:
    records = world.measured(CleanCheck()).records
    assert [record["id"] for record in records] == [str(each) for each in world.ids.tolist()]
    assert json.loads(canonical.dumps(list(records))) == list(records)


def test_every_row_is_counted(world) -> None:
    counted = world.model = Counted(world.model)
    measured = world.measured(CleanCheck())
    assert (measured.cost.forwards, measured.cost.queries) == (60, 0)
    assert counted.forwards == 60


def test_units_in_any_order_and_of_any_size_give_equal_findings(world) -> None:
    check = CleanCheck()
    whole = list(world.measured(check).records)
    parts = [list(world.measured(check, range(start, min(start + 7, 60))).records) for start in range(0, 60, 7)]
    random.Random(1).shuffle(parts)
    mixed = [record for part in parts for record in part]
    one, other = check.reduce(world.reduction(whole)), check.reduce(world.reduction(mixed))
    assert [each.value for each in one] == pytest.approx([each.value for each in other], rel=1e-6)
    again = list(whole)
    random.Random(2).shuffle(again)
    assert check.reduce(world.reduction(again)) == one


def test_a_model_of_labels_has_accuracy_and_no_loss(world, labels_only) -> None:
    expected = world.findings(CleanCheck())["accuracy"].value
    world.model = labels_only(world.model)
    findings = world.findings(CleanCheck())
    assert findings.keys() == {"accuracy"}
    assert findings["accuracy"].value == expected
    assert world.measured(CleanCheck()).cost.queries == 60
    assert CleanCheck().needs is Access.LABELS


def test_a_sample_without_finite_logits_is_never_right(world, spoil) -> None:
    right = world.right()
    hit = right.nonzero().flatten().tolist()[:1]
    spoil(world, hit)
    findings = world.findings(CleanCheck())
    accuracy = findings["accuracy"]
    assert accuracy.value == (int(right.sum()) - 1) / 60
    assert accuracy.status is Status.UNRELIABLE
    assert [flag.code for flag in accuracy.flags] == ["E410"]
    assert "1 of 60" in accuracy.reason
    assert findings["loss"].status is Status.UNRELIABLE
    assert findings["loss"].n == 59


def test_a_model_without_any_number_has_no_loss(world, spoil) -> None:
    spoil(world, range(60))
    findings = world.findings(CleanCheck())
    assert (findings["accuracy"].value, findings["accuracy"].status) == (0.0, Status.UNRELIABLE)
    assert (findings["loss"].value, findings["loss"].status) == (None, Status.NOT_MEASURED)


@pytest.mark.parametrize(
    ("missing", "status", "words"),
    [
        ("budget", Status.NOT_MEASURED, "the budget ended when 40 of 60 samples"),
        ("error: E406 the model raised", Status.ERROR, "E406 the model raised"),
        ("", Status.NOT_MEASURED, "only 40 of 60 samples"),
    ],
)
def test_missing_records_give_no_number(world, missing, status, words) -> None:
    findings = world.findings(CleanCheck(), range(40), planned={"eval": 60}, missing=missing)
    for each in findings.values():
        assert (each.value, each.interval, each.status) == (None, None, status)
        assert words in each.reason
        assert words in each.sentence
        assert each.series == {}


def test_no_samples_is_not_measured(world) -> None:
    findings = CleanCheck().reduce(world.reduction([]))
    assert {each.metric for each in findings} == {"accuracy", "loss"}
    assert all(each.value is None and each.status is Status.NOT_MEASURED for each in findings)


@pytest.mark.parametrize(
    ("flag", "status"),
    [
        (Flag(code="E420", level="unreliable", text="The answers are random."), Status.UNRELIABLE),
        (Flag(code="E430", level="warn", text="One class is never predicted."), Status.WARN),
        (Flag(code="E431", level="unreliable", text="No.", families=("adversarial",)), Status.MEASURED),
        (Flag(code="E431", level="unreliable", text="No.", families=("clean",)), Status.UNRELIABLE),
    ],
)
def test_flags_of_preflight_decide_how_it_stands(world, flag, status) -> None:
    accuracy = world.findings(CleanCheck(), flags=(flag,))["accuracy"]
    assert accuracy.status is status
    assert accuracy.value is not None
    assert (flag in accuracy.flags) == (status is not Status.MEASURED)
    if status is Status.UNRELIABLE:
        assert flag.text in accuracy.reason
        assert flag.text in accuracy.sentence


@pytest.mark.parametrize("value", [float("nan"), 1.01, -3.0])
def test_samples_outside_the_bounds_are_refused(world, value) -> None:
    world.inputs[7, 0, 0, 0] = value
    with pytest.raises(DataRefused, match="sample-7") as caught:
        world.measured(CleanCheck())
    assert caught.value.code == "E351"


def test_probabilities_that_are_called_logits_have_no_loss(world) -> None:
    flag = Flag(code="E430", level="unreliable", text="like probabilities", families=("adversarial", "membership"))
    findings = world.findings(CleanCheck(), flags=(flag,))
    assert findings["loss"].status is Status.NOT_MEASURED
    assert findings["accuracy"].status is Status.MEASURED

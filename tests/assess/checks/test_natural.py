"""The natural check against counts by hand: pairs, evidence of flips, and numbers that are none."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from vambrace.assess.checks.natural import NaturalCheck
from vambrace.assess.evidence import load_evidence
from vambrace.core import canonical
from vambrace.core.access import Access
from vambrace.core.findings import Status
from vambrace.core.intervals import bonett_price, wilson, wilson_clustered
from vambrace.core.options import Options
from vambrace.errors import ConfigError
from vambrace.models import Counted
from vambrace.perturb import Contrast, GaussianNoise, Rotate

NOISE = GaussianNoise(sigmas=(0.05, 0.1, 0.2, 0.4, 0.8))


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing(Options):
    """Leaves everything as it is."""

    needs_images: ClassVar[bool] = True

    def __call__(self, inputs, *, severity, rng, ids, bounds):
        return inputs.clone()


def perturbed(world, perturbation, severity):
    return perturbation(
        world.inputs, severity=severity, rng=world.context().rng, ids=world.ids, bounds=world.model.bounds
    )


def test_accuracy_and_drop_are_those_counted_by_hand(world) -> None:
    check = NaturalCheck(perturbation=NOISE)
    findings = world.findings(check)
    before = world.right()
    shares = torch.zeros(60)
    for severity in range(1, 6):
        after = world.model.predict(perturbed(world, NOISE, severity)) == world.labels
        shares += after / 5
        accuracy, drop = findings[f"accuracy@{severity}"], findings[f"drop@{severity}"]
        assert accuracy.value == float(after.double().mean())
        assert accuracy.interval == wilson(int(after.sum()), 60)
        lost, won = int((before & ~after).sum()), int((after & ~before).sum())
        assert drop.value == pytest.approx(100 * (lost - won) / 60)
        assert drop.value == pytest.approx(100 * float(before.double().mean() - after.double().mean()))
        expected = bonett_price(lost, won, 60)
        assert (drop.interval.low, drop.interval.high) == (100 * expected.low, 100 * expected.high)
        assert (drop.unit, drop.higher_is_better, drop.n) == ("points", False, 60)
        assert accuracy.parameters["severity"] == severity
    assert findings["accuracy@5"].value < findings["accuracy@1"].value
    mean = findings["mean_accuracy"]
    assert mean.value == pytest.approx(float(shares.mean()))
    assert mean.interval == wilson_clustered(shares.double().tolist(), 5) or mean.interval.low < mean.value


def test_a_perturbation_that_does_nothing_costs_nothing(world) -> None:
    findings = world.findings(NaturalCheck(perturbation=Nothing(), severities=(2,)))
    assert findings["drop@2"].value == 0.0
    assert findings["accuracy@2"].value == float(world.right().double().mean())
    assert findings["accuracy@2"].evidence == ()
    assert findings.keys() == {"accuracy@2", "drop@2", "mean_accuracy"}


def test_a_gain_is_said_as_one(world) -> None:
    findings = world.findings(NaturalCheck(perturbation=NOISE))
    for severity in range(1, 6):
        drop = findings[f"drop@{severity}"]
        assert ("raises" in drop.sentence) == (drop.value < 0)


def test_every_row_is_counted(world) -> None:
    counted = world.model = Counted(world.model)
    cost = world.measured(NaturalCheck(perturbation=Rotate(), severities=(1, 3))).cost
    assert cost.forwards == counted.forwards == 180


def test_evidence_shows_flips_worst_first_and_holds(world) -> None:
    check = NaturalCheck(perturbation=NOISE, severities=(3, 5))
    findings = world.findings(check)
    shown = findings["accuracy@5"].evidence
    assert len(shown) == 2  # four images over two severities
    margins = []
    for each in shown:
        pair = load_evidence(world.folder, each.file)
        place = world.ids.tolist().index(int(each.sample))
        assert torch.equal(pair.clean, world.inputs[place])
        assert torch.equal(pair.changed, perturbed(world, NOISE, 5)[place])
        label = int(world.labels[place])
        assert (
            int(world.model.predict(pair.clean[None])) == label == each.data["label"] == each.data["clean_prediction"]
        )
        assert int(world.model.predict(pair.changed[None])) == each.data["prediction"] != label
        assert (each.kind, each.data["perturbation"], each.data["severity"]) == ("perturbed", check.name, 5)
        assert each.data["label_name"] == "abcde"[label]
        assert each.data["name"] == f"sample-{place}"
        margins.append(each.data["margin"])
    assert margins == sorted(margins, reverse=True)
    assert margins[0] > 0
    flips = (world.model.predict(perturbed(world, NOISE, 5)) != world.labels) & world.right()
    logits = world.model(perturbed(world, NOISE, 5)[flips])
    own = logits.gather(1, world.labels[flips].unsqueeze(1)).squeeze(1)
    assert margins[0] == pytest.approx(float((logits.amax(1) - own).max()))
    names = [each.finding for finding in findings.values() for each in finding.evidence]
    assert len(set(names)) == len(names) == 4


def test_units_in_any_order_and_of_any_size_give_equal_findings(world) -> None:
    check = NaturalCheck(perturbation=NOISE, severities=(1, 4))
    whole = list(world.measured(check).records)
    mixed = [
        record
        for start in (30, 0, 45)
        for record in world.measured(check, range(start, {30: 45, 0: 30, 45: 60}[start])).records
    ]
    random.Random(0).shuffle(mixed)
    for record in mixed:  # fewer samples in a unit: more of them are saved, and the best are the same
        assert record["id"] in {each["id"] for each in whole}
    one = {each.metric: each for each in check.reduce(world.reduction(whole))}
    other = {each.metric: each for each in check.reduce(world.reduction(mixed))}
    for metric, finding in one.items():
        assert finding.value == other[metric].value
        assert finding.interval == other[metric].interval
        assert [each.sample for each in finding.evidence] == [each.sample for each in other[metric].evidence]
    random.Random(1).shuffle(whole)
    assert check.reduce(world.reduction(whole)) == list(one.values())


def test_no_images_saves_none(make_world) -> None:
    world = make_world(images=0)
    findings = world.findings(NaturalCheck(perturbation=NOISE))
    assert all(finding.evidence == () for finding in findings.values())
    assert not (world.folder / "evidence").exists()


def test_labels_are_enough(world, labels_only) -> None:
    check = NaturalCheck(perturbation=NOISE, severities=(4,))
    expected = world.findings(check)
    world.model = labels_only(world.model)
    found = world.findings(check)
    assert check.needs is Access.LABELS
    assert found["accuracy@4"].value == expected["accuracy@4"].value
    assert len(found["accuracy@4"].evidence) == 4


def test_samples_without_finite_logits_are_never_right(world, spoil) -> None:
    hit = world.right().nonzero().flatten().tolist()[:2]
    world.inputs[hit] = world.inputs[hit].round(decimals=3)
    spoil(world, hit)
    findings = world.findings(NaturalCheck(perturbation=Nothing(), severities=(1,)))
    accuracy = findings["accuracy@1"]
    assert accuracy.status is Status.UNRELIABLE
    assert accuracy.value == float(world.right().double().mean())
    assert findings["drop@1"].status is Status.UNRELIABLE
    assert [flag.code for flag in accuracy.flags] == ["E410"]
    records = world.measured(NaturalCheck(perturbation=Nothing(), severities=(1,))).records
    spoilt = [record for record in records if not record["finite"]]
    assert len(spoilt) == 2
    assert all(record["clean"] is None and record["predictions"] == [None] for record in spoilt)
    assert canonical.dumps(list(records))


@pytest.mark.parametrize(("missing", "status"), [("budget", Status.NOT_MEASURED), ("error: x", Status.ERROR)])
def test_missing_records_give_no_number(world, missing, status) -> None:
    findings = world.findings(
        NaturalCheck(perturbation=NOISE, severities=(1, 2)), range(30), planned={"eval": 60}, missing=missing
    )
    assert len(findings) == 5
    assert all(
        (each.value, each.interval, each.evidence, each.status) == (None, None, (), status)
        for each in findings.values()
    )


def test_a_model_without_bounds_is_refused(world) -> None:
    world.model._bounds = None
    with pytest.raises(ConfigError) as caught:
        world.measured(NaturalCheck(perturbation=Contrast()))
    assert caught.value.code == "E199"


@pytest.mark.parametrize("severities", [(), (0, 1), (1, 6), (2, 1), (1, 1), (True, 2)])
def test_bad_severities_are_refused(severities) -> None:
    with pytest.raises(ConfigError) as caught:
        NaturalCheck(perturbation=Contrast(), severities=severities)
    assert caught.value.code == "E198"


def test_options_survive_the_plan_file() -> None:
    check = NaturalCheck(perturbation=Rotate(border="mirror", degrees=(1, 2, 3, 4, 5)), severities=(1, 3))
    data = check.as_json()
    assert data["perturbation"]["name"] == "rotate"
    assert NaturalCheck.from_json(data) == check
    assert check.as_json() != NaturalCheck(perturbation=Contrast(), severities=(1, 3)).as_json()

"""The adversarial check: counts by hand, proof of claims, and attacks that lie, swapped in."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from vambrace.assess.checks.adversarial import AdversarialCheck
from vambrace.assess.evidence import load_evidence
from vambrace.attacks import FGSM, PGD
from vambrace.core import canonical
from vambrace.core.access import Access
from vambrace.core.findings import Cost, Status
from vambrace.core.intervals import wilson
from vambrace.core.options import Options
from vambrace.errors import ConfigError
from vambrace.models import Counted, from_torch
from vambrace.ops.norms import distances
from vambrace.search.outcome import Attacked

RADII = (0.01, 0.03, 0.1)
CHECK = AdversarialCheck(attack=PGD(eps=0.1, steps=10), eps=RADII)


def outcome(inputs, adversarial, success, *, finite=None) -> Attacked:
    n = len(inputs)
    whole = torch.ones(n, dtype=torch.int64)
    return Attacked(
        adversarial=adversarial,
        success=success,
        norm="linf",
        distance=torch.zeros(n, dtype=torch.float64),
        margin=torch.ones(n),
        forwards=whole,
        backwards=whole,
        verifications=whole,
        queries=0 * whole,
        first_success=whole,
        finite=torch.ones(n, dtype=torch.bool) if finite is None else finite,
        zero_gradients=0 * whole,
        cost=Cost(forwards=n),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stub(Options):
    """An attack that lies in one way."""

    how: str
    eps: float = 0.1
    norm: str = "linf"
    needs: ClassVar[Access] = Access.GRADIENTS

    def __call__(self, model, inputs, goal, *, rng, ids, batch_size):
        n = len(inputs)
        everyone, nobody = torch.ones(n, dtype=torch.bool), torch.zeros(n, dtype=torch.bool)
        match self.how:
            case "claims the inputs":
                return outcome(inputs, inputs.clone(), everyone)
            case "does nothing":
                return outcome(inputs, inputs.clone(), nobody)
            case "too far":
                return outcome(inputs, others(model, goal), everyone)
            case "out of bounds":
                free = from_torch(model.module, bounds=None)
                honest = PGD(eps=self.eps, steps=10)(free, inputs, goal, rng=rng, ids=ids)
                return outcome(inputs, honest.adversarial, honest.success)
            case "a hair too far":
                honest = PGD(eps=self.eps * 1.0001, steps=10)(model, inputs, goal, rng=rng, ids=ids)
                return outcome(inputs, honest.adversarial, honest.success)
            case "nan":
                return outcome(inputs, inputs * torch.nan, everyone)
            case "cannot tell":
                return outcome(inputs, inputs, nobody, finite=nobody)
            case "blind on some":
                honest = outcome(inputs, inputs.clone(), nobody)
                honest.zero_gradients[: max(1, n // 4)] = 1
                return honest
            case "another norm":
                return PGD(norm="l2", eps=1.0, steps=10)(model, inputs, goal, rng=rng, ids=ids)
            case _:
                raise AssertionError(self.how)


def others(model, labels):
    """A picture of another class for every sample."""
    return model.module.weight.detach()[(labels + 1) % 5].view(-1, 1, 6, 6).clamp(0, 1)


def test_numbers_are_those_of_the_attack_alone(world) -> None:
    findings = world.findings(CHECK)
    right = world.right()
    broken = torch.zeros(60, dtype=torch.bool)
    for eps in RADII:
        alone = PGD(eps=eps, steps=10)(
            world.model, world.inputs[right], world.labels[right], rng=world.context().rng, ids=world.ids[right]
        )
        broken[right.nonzero().flatten()[alone.success]] = True
        robust, success = findings[f"robust_accuracy@{eps:.6g}"], findings[f"success@{eps:.6g}"]
        kept = int((right & ~broken).sum())
        assert robust.value == kept / 60
        assert robust.interval == wilson(kept, 60)
        assert success.value == int((broken & right).sum()) / int(right.sum())
        assert (success.n, success.higher_is_better) == (int(right.sum()), False)
        assert robust.parameters == {**PGD(eps=eps, steps=10).as_json(), "attack": CHECK.name, "eps": eps}
    assert 0 < findings["robust_accuracy@0.01"].value < float(right.double().mean())
    assert findings["robust_accuracy@0.01"].status is Status.MEASURED


def test_the_curve_stands_on_the_largest_radius_and_begins_clean(world) -> None:
    findings = world.findings(CHECK)
    series = findings["robust_accuracy@0.1"].series
    assert series["eps"] == [0.0, *RADII]
    assert series["accuracy"][0] == float(world.right().double().mean())
    assert series["accuracy"] == sorted(series["accuracy"], reverse=True)
    assert [findings[f"robust_accuracy@{eps:.6g}"].value for eps in RADII] == series["accuracy"][1:]
    assert set(findings["robust_accuracy@0.01"].series) == {"outcomes"}


def test_only_what_is_left_is_attacked_again_and_every_row_is_counted(world) -> None:
    counted = world.model = Counted(world.model)
    measured = world.measured(CHECK)
    cost = measured.cost
    rows = cost.forwards + cost.verifications + cost.idle_forwards + cost.padding_forwards
    assert counted.forwards == rows
    assert counted.backwards == cost.backwards + cost.idle_backwards + cost.padding_backwards
    alone = world.measured(AdversarialCheck(attack=PGD(eps=0.1, steps=10), eps=(0.1,))).cost
    assert cost.forwards < alone.forwards + 2 * 11 * 60


def test_records_hold_the_smallest_radius_and_are_canonical(world) -> None:
    records = list(world.measured(CHECK).records)
    assert canonical.dumps(records)
    wrong = ~world.right()
    for place, record in enumerate(records):
        assert record["id"] == str(int(world.ids[place]))
        assert not (wrong[place] and "broken" in record)
        if "broken" in record:
            assert record["distance"] <= record["broken"]
            assert record["margin"] > 0
            assert record["changed_prediction"] != record["label"]
    assert {record["broken"] for record in records if "broken" in record} == set(RADII)


def test_evidence_can_be_replayed_from_its_file(world) -> None:
    findings = world.findings(CHECK)
    shown = [(eps, each) for eps in RADII for each in findings[f"robust_accuracy@{eps:.6g}"].evidence]
    assert len(shown) == len({each.finding for _, each in shown}) == 4, "four images in all, over three radii"
    assert {eps for eps, _ in shown} == set(RADII)
    for eps, each in shown:
        pair = load_evidence(world.folder, each.file)
        place = world.ids.tolist().index(int(each.sample))
        assert torch.equal(pair.clean, world.inputs[place])
        assert int(world.model.predict(pair.clean[None])) == each.data["label"] == each.data["clean_prediction"]
        assert int(world.model.predict(pair.changed[None])) == each.data["prediction"] != each.data["label"]
        length = float(distances(pair.changed[None], pair.clean[None], "linf"))
        assert length == each.data["distance"] <= eps == each.data["eps"]
        assert 0 <= float(pair.changed.min()) <= float(pair.changed.max()) <= 1
        assert each.finding.startswith(f"under-test-{eps:.6g}-")
    margins = [each.data["margin"] for eps, each in shown if eps == 0.1]
    assert margins == sorted(margins, reverse=True)


def test_units_in_any_order_and_of_any_size_give_equal_findings(world) -> None:
    whole = list(world.measured(CHECK).records)
    parts = [list(world.measured(CHECK, range(start, start + 12)).records) for start in (36, 0, 24, 48, 12)]
    mixed = [record for part in parts for record in part]
    one, other = CHECK.reduce(world.reduction(whole)), CHECK.reduce(world.reduction(mixed))
    for this, that in zip(one, other, strict=True):
        assert (this.value, this.interval, this.series) == (that.value, that.interval, that.series)
        assert [each.sample for each in this.evidence] == [each.sample for each in that.evidence]
    random.Random(3).shuffle(whole)
    assert CHECK.reduce(world.reduction(whole)) == one


@pytest.mark.parametrize(
    "how", ["claims the inputs", "too far", "out of bounds", "a hair too far", "nan", "another norm"]
)
def test_claims_that_do_not_hold_make_the_finding_unreliable(world, how) -> None:
    check = AdversarialCheck(attack=Stub(how=how), eps=(0.05,))
    robust = world.findings(check)["robust_accuracy@0.05"]
    assert robust.status is Status.UNRELIABLE
    assert "E461" in [flag.code for flag in robust.flags]
    assert "do not hold" in robust.reason
    lied = [record for record in world.measured(check).records if record.get("mismatch")]
    assert lied
    assert not any("broken" in record or "saved" in record for record in lied)


def test_a_claim_without_proof_is_neither_robust_nor_a_success(world) -> None:
    findings = world.findings(AdversarialCheck(attack=Stub(how="claims the inputs"), eps=(0.05,)))
    assert findings["robust_accuracy@0.05"].value == 0.0
    assert findings["success@0.05"].value == 0.0
    assert not (world.folder / "evidence").exists()


def test_an_attack_that_does_nothing_leaves_clean_accuracy(world) -> None:
    """It claims nothing, so nothing is refuted here; the conformance kit of attacks is what catches it."""
    robust = world.findings(AdversarialCheck(attack=Stub(how="does nothing"), eps=(0.05,)))["robust_accuracy@0.05"]
    assert robust.value == float(world.right().double().mean())
    honest = world.findings(AdversarialCheck(attack=PGD(eps=0.05, steps=5), eps=(0.05,)))["robust_accuracy@0.05"]
    assert honest.value < robust.value


def test_samples_whose_logits_are_lost_on_the_way_are_never_robust(world) -> None:
    robust = world.findings(AdversarialCheck(attack=Stub(how="cannot tell"), eps=(0.05, 0.1)))["robust_accuracy@0.1"]
    assert (robust.value, robust.status) == (0.0, Status.UNRELIABLE)
    assert [flag.code for flag in robust.flags] == ["E410"]


def test_samples_without_finite_logits_are_never_robust_and_not_attacked(world, spoil) -> None:
    hit = world.right().nonzero().flatten().tolist()[:3]
    spoil(world, hit)
    findings = world.findings(AdversarialCheck(attack=Stub(how="does nothing"), eps=(0.05,)))
    robust = findings["robust_accuracy@0.05"]
    right = int(world.right().sum())
    assert robust.value == right / 60
    assert robust.status is Status.UNRELIABLE
    assert findings["success@0.05"].n == right


def test_success_is_not_measured_where_nothing_was_right(world) -> None:
    world.labels = (world.model.predict(world.inputs) + 1) % 5
    findings = world.findings(CHECK)
    assert findings["robust_accuracy@0.1"].value == 0.0
    assert findings["success@0.1"].value is None
    assert findings["success@0.1"].status is Status.NOT_MEASURED
    assert "right before" in findings["success@0.1"].reason


@pytest.mark.parametrize(("missing", "status"), [("budget", Status.NOT_MEASURED), ("error: x", Status.ERROR)])
def test_missing_records_give_no_number(world, missing, status) -> None:
    findings = world.findings(CHECK, range(30), planned={"eval": 60}, missing=missing)
    assert len(findings) == 6
    for each in findings.values():
        assert (each.value, each.interval, each.evidence, each.series) == (None, None, (), {})
        assert each.status is status


def test_no_images_saves_none(make_world) -> None:
    world = make_world(images=0)
    assert all(each.evidence == () for each in world.findings(CHECK).values())
    assert not (world.folder / "evidence").exists()


def test_equal_checks_are_equal_values() -> None:
    one = AdversarialCheck(attack=PGD(eps=0.5), eps=(0.3, 0.1))
    other = AdversarialCheck(attack=PGD(eps=0.1), eps=(0.1, 0.3))
    assert one == other
    assert one.as_json() == other.as_json()
    assert one.needs is Access.GRADIENTS


def test_options_survive_the_plan_file() -> None:
    data = CHECK.as_json()
    assert data["attack"]["name"] == "pgd"
    assert AdversarialCheck.from_json(data) == CHECK
    assert AdversarialCheck(attack=FGSM(eps=0.1), eps=RADII).as_json() != data


@pytest.mark.parametrize("eps", [(), (0.0, 0.1), (-0.1,), (0.1, 0.1), (float("inf"),)])
def test_bad_radii_are_refused(eps) -> None:
    with pytest.raises(ConfigError) as caught:
        AdversarialCheck(attack=PGD(eps=0.1), eps=eps)
    assert caught.value.code == "E197"


def test_an_attack_without_a_radius_is_refused() -> None:
    @dataclass(frozen=True)
    class Plain(Options):
        pass

    with pytest.raises(ConfigError) as caught:
        AdversarialCheck(attack=Plain(), eps=(0.1,))
    assert caught.value.code == "E197"


@pytest.mark.parametrize(("blind", "flagged"), [(0, False), (1, False), (2, True), (33, True)])
def test_survivors_without_gradients_are_no_proof_of_robustness(world, blind, flagged) -> None:
    """Of 33 survivors, 1 can be 1 of 100 by chance and 2 cannot: the lower ends are 0.5 and 1.7 of 100."""
    right = [i for i, good in enumerate(world.right().tolist()) if good]
    assert len(right) == 33
    records = list(world.measured(AdversarialCheck(attack=Stub(how="does nothing"), eps=(0.05,))).records)
    for place in right[:blind]:
        records[place] = {**records[place], "blind": True}
    findings = AdversarialCheck(attack=Stub(how="does nothing"), eps=(0.05,)).reduce(world.reduction(records))
    assert ("E464" in [flag.code for flag in findings[0].flags]) == flagged


def test_blind_samples_are_recorded_unless_they_broke(world) -> None:
    records = world.measured(AdversarialCheck(attack=Stub(how="blind on some"), eps=(0.05,))).records
    blind = [record for record in records if record.get("blind")]
    assert len(blind) == 33 // 4
    assert all("broken" not in record for record in blind)
    assert not any(record.get("blind") for record in world.measured(CHECK).records)
